"""Say in words where two models differ: for the contract's error, for `--opset`, and the text diff of `--diff`."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Iterator, Sequence

import onnx
from google.protobuf.message import Message

from jr_onnx.opsets import main_opset, normal_domain
from jr_onnx.rewriter.scopes import all_nodes, all_scopes

_VALUE_SHOWN = 60


def differences(one: Message, other: Message, where: str = "model") -> list[str]:
    """Return a line for every field in which two messages differ, innermost first found."""
    found: list[str] = []
    for descriptor in one.DESCRIPTOR.fields:
        name = descriptor.name
        first, second = getattr(one, name), getattr(other, name)
        if _repeated(first):
            found.extend(_differences_in_list(first, second, f"{where}.{name}"))
        elif isinstance(first, Message):
            if one.HasField(name) != other.HasField(name):
                found.append(f"{where}.{name} is {'gone' if one.HasField(name) else 'new'}")
            elif one.HasField(name):
                found.extend(differences(first, second, f"{where}.{name}"))
        elif first != second or _has(one, name) != _has(other, name):
            found.append(f"{where}.{name}: {_short(first)} -> {_short(second)}")
    return found


def conversion_summary(source: onnx.ModelProto, converted: onnx.ModelProto) -> list[str]:
    """List what a conversion to another opset changed, in readable lines."""
    lines = [f"opset {main_opset(source)} -> {main_opset(converted)}"]
    if source.ir_version != converted.ir_version:
        lines.append(f"IR version {source.ir_version} -> {converted.ir_version}")
    before, after = _operators(source), _operators(converted)
    operators = sorted(set(before) | set(after))
    lines.extend(f"{op}: {before[op]} -> {after[op]} nodes" for op in operators if before[op] != after[op])
    lines.extend(_lost("node name", _node_names(source), _node_names(converted)))
    lines.extend(
        f"{title}: {_short(getattr(source, title))} -> {_short(getattr(converted, title))}"
        for title in ("doc_string", "producer_name", "domain", "model_version")
        if getattr(source, title) != getattr(converted, title)
    )
    for title, first, second in (
        ("metadata entries", source.metadata_props, converted.metadata_props),
        ("functions", source.functions, converted.functions),
        ("value infos", source.graph.value_info, converted.graph.value_info),
        ("initializers", source.graph.initializer, converted.graph.initializer),
        (
            "quantisation annotations",
            source.graph.quantization_annotation,
            converted.graph.quantization_annotation,
        ),
        ("sparse initializers", source.graph.sparse_initializer, converted.graph.sparse_initializer),
        ("training infos", source.training_info, converted.training_info),
    ):
        if len(first) != len(second):
            lines.append(f"{title}: {len(first)} -> {len(second)}")
    return lines


def text_diff(source: onnx.ModelProto, output: onnx.ModelProto) -> str:
    """Return a unified diff of the two models, a line a node, functions and sub-graphs included."""
    lines = difflib.unified_diff(
        list(_render(source)), list(_render(output)), fromfile="original", tofile="retrofit", n=1, lineterm=""
    )
    return "\n".join(lines)


def _render(model: onnx.ModelProto) -> Iterator[str]:
    yield f"ir_version {model.ir_version}"
    for item in model.opset_import:
        yield f"opset {item.domain or 'ai.onnx'} {item.version}"
    for value in model.graph.input:
        yield f"input {value.name}"
    for scope in all_scopes(model):
        if scope.path:
            yield f"[{scope.path}]"
        for node in scope.nodes:
            yield render_node(node)


def render_node(node: onnx.NodeProto) -> str:
    """Return a node as one line of text: outputs, operator, inputs, attributes."""
    attributes = ", ".join(f"{item.name}={_attribute(item)}" for item in node.attribute)
    domain = f"{node.domain}::" if normal_domain(node.domain) else ""
    inputs = ", ".join(node.input)
    return f"{', '.join(node.output)} = {domain}{node.op_type}({inputs}){' {' + attributes + '}' if attributes else ''}"


def _attribute(attribute: onnx.AttributeProto) -> str:
    if attribute.ref_attr_name:
        return f"@{attribute.ref_attr_name}"
    if attribute.HasField("t"):
        tensor = attribute.t
        if not tensor.dims or list(tensor.dims) == [1]:
            try:
                return str(onnx.numpy_helper.to_array(tensor).reshape(()).item())
            except Exception:  # noqa: BLE001 - onnx raises anything on a tensor that contradicts itself
                return "tensor"
        return f"tensor{list(tensor.dims)}"
    if attribute.HasField("g") or attribute.graphs:
        return "graph"
    try:
        value = onnx.helper.get_attribute_value(attribute)
        return _short(value.decode("utf-8", "replace") if isinstance(value, bytes) else value)
    except Exception:  # noqa: BLE001 - the same of an attribute
        return "?"


def _repeated(value: object) -> bool:
    return hasattr(value, "extend") or hasattr(value, "add")


def _differences_in_list(one: Sequence[object], other: Sequence[object], where: str) -> list[str]:
    if len(one) != len(other):
        return [f"{where} has {len(one)} items -> {len(other)}"]
    found: list[str] = []
    for index, (left, right) in enumerate(zip(one, other, strict=True)):
        if isinstance(left, Message):
            found.extend(differences(left, right, f"{where}[{index}]"))
        elif left != right:
            found.append(f"{where}[{index}]: {_short(left)} -> {_short(right)}")
    return found


def _has(message: Message, name: str) -> bool:
    try:
        return bool(message.HasField(name))
    except ValueError:  # a field without presence
        return True


def _operators(model: onnx.ModelProto) -> Counter[str]:
    return Counter(node.op_type for node in all_nodes(model))


def _node_names(model: onnx.ModelProto) -> set[str]:
    return {node.name for node in all_nodes(model) if node.name}


def _lost(what: str, before: set[str], after: set[str]) -> list[str]:
    lost = sorted(before - after)
    if not lost:
        return []
    return [f"{len(lost)} {what}{'s' if len(lost) > 1 else ''} gone, for instance {lost[0]!r}"]


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _VALUE_SHOWN else text[: _VALUE_SHOWN - 3] + "..."
