"""Write docs/api.md, the public names of `jr_onnx`, from their signatures and docstrings.

python -m tools.api_page            # prints the page
python -m tools.api_page --write    # writes docs/api.md
"""

from __future__ import annotations

import argparse
import inspect
import re
import sys
import typing
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import jr_onnx
from jr_onnx import api

PAGE = Path(__file__).resolve().parents[1] / "docs" / "api.md"
_SECTIONS = ("Args", "Attributes", "Returns", "Raises", "Yields")
_ENTRY = re.compile(r" {4}(\*{0,2}[\w., *]+?)(?: \(.*\))?: (.*)")
_INTRODUCTION = """# Python API

<!-- Written by `python -m tools.api_page --write` from the docstrings; do not edit. -->

The public names of `jr_onnx`. They are imported on first use, so `import jr_onnx` alone costs next to nothing.
"""


def main() -> int:
    """Print or write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="write docs/api.md")
    if parser.parse_args().write:
        PAGE.write_text(page(), encoding="utf-8")
    else:
        sys.stdout.write(page())
    return 0


def page() -> str:
    """Return the page: functions, classes and exceptions in alphabetical order, then what else `api` defines."""
    named = {name: inspect.unwrap(getattr(jr_onnx, name)) for name in sorted(jr_onnx.__all__, key=str.lower)}
    functions = {name: item for name, item in named.items() if callable(item) and not inspect.isclass(item)}
    classes = {name: item for name, item in named.items() if inspect.isclass(item)}
    exceptions = {name: item for name, item in classes.items() if issubclass(item, Exception)}
    groups = {
        "Functions": functions,
        "Classes": {name: item for name, item in classes.items() if name not in exceptions},
        "Exceptions": exceptions,
    }
    parts = [_INTRODUCTION]
    for title, items in groups.items():
        if items:
            parts.append(f"## {title}\n")
            parts += [_entry(name, item) for name, item in items.items()]
    parts += ["## The module `jr_onnx.api`\n", render(inspect.getdoc(api) or "")]
    parts += [_entry(f"api.{name}", item) for name, item in _own(api) if name not in named]
    return "\n".join(parts)


def _own(module: ModuleType) -> Iterator[tuple[str, object]]:
    """Return the public functions and classes that a module defines: functions first."""
    members = [item for item in vars(module).items() if getattr(item[1], "__module__", "") == module.__name__]
    documented = [item for item in members if not item[0].startswith("_") and callable(item[1])]
    yield from sorted(documented, key=lambda item: inspect.isclass(item[1]))


def _entry(name: str, item: object) -> str:
    blocks = [f"### `{name}`\n"]
    forms: list[object] = list(typing.get_overloads(item)) if inspect.isfunction(item) else []
    if signatures := [text for form in forms or [item] if (text := _signature(name, form))]:
        blocks.append("```python\n" + "\n\n".join(signatures) + "\n```\n")
    blocks.append(render(inspect.getdoc(item) or ""))
    if inspect.isclass(item) and not issubclass(item, Exception):
        for method_name, method in _methods(item):
            blocks.append(f"#### `{name}.{method_name}`\n")
            blocks.append(f"```python\n{_signature(method_name, method)}\n```\n")
            blocks.append(render(inspect.getdoc(method) or ""))
    return "\n".join(blocks)


def _methods(item: type) -> Iterator[tuple[str, object]]:
    """Return the public methods that the class itself defines and documents, in their order."""
    for name, member in vars(item).items():
        function = member.__func__ if isinstance(member, classmethod | staticmethod) else member
        if not name.startswith("_") and inspect.isfunction(function) and function.__doc__:
            yield name, function


def _signature(name: str, item: object) -> str:
    """Return the call as it is written in Python, one parameter a line where it is long; "" where there is none."""
    if inspect.isclass(item) and issubclass(item, Exception):
        return ""
    try:
        signature = inspect.signature(item)  # type: ignore[arg-type] # a function or a class
    except (TypeError, ValueError):
        return ""
    parameters = [one for one in signature.parameters.values() if one.name not in ("self", "cls")]
    signature = signature.replace(parameters=parameters)
    if inspect.isclass(item):
        signature = signature.replace(return_annotation=signature.empty)
    text = f"{name}{signature}"
    text = re.sub(r"'(jr_onnx\.[\w.]+)'", r"\1", re.sub(r"(?<=[:>] )'([^']*)'", r"\1", text))
    if len(text) <= 100:
        return text
    inner = ",\n    ".join(_parameters(signature))
    returned = text.rpartition(") -> ")[2] if ") -> " in text else ""
    return f"{name}(\n    {inner},\n)" + (f" -> {returned}" if returned else "")


def _parameters(signature: inspect.Signature) -> Iterator[str]:
    starred = False
    for one in signature.parameters.values():
        if one.kind is one.KEYWORD_ONLY and not starred:
            starred = True
            yield "*"
        starred = starred or one.kind is one.VAR_POSITIONAL
        yield re.sub(r"""(?<=: )(?:'([^']*)'|"([^"]*)")""", r"\1\2", str(one))


def render(docstring: str) -> str:
    """Return a docstring in Google's form as Markdown: sections become lists, code after `::` or indented stays."""
    lines: list[str] = []
    section = ""
    for line in docstring.splitlines():
        if line.rstrip(":") in _SECTIONS and line.endswith(":"):
            section = line[:-1]
            lines += [f"**{section}**", ""]
        elif section and line and not line.startswith(" "):
            section = ""
            lines.append(line)
        elif section in ("Args", "Attributes", "Raises") and (entry := _ENTRY.match(line)):
            lines.append(f"- `{entry[1]}`: {entry[2]}")
        elif section and line:
            lines.append("  " + line.strip() if lines and lines[-1].startswith(("- ", "  ")) else line.strip())
        else:
            lines.append(line)
    return "\n".join(lines).rstrip() + "\n"


if __name__ == "__main__":
    sys.exit(main())
