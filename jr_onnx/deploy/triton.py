"""Package an ONNX model into a Triton model repository.

    model.onnx (+ model.data)   ->   repository/<name>/config.pbtxt
                                                       labels.txt               with labels
                                                       <library>.so             with the operator library
                                                       <version>/model.onnx
                                                                 model.data     external data, same relative names
                                                                 jr_onnx.manifest (and .sig)

Everything is built aside and put in place in one step. A second model stands beside the first; a second version
goes into the first one's folder and shares its configuration, which must be the same to the byte, because Triton
reads one for all versions. `force` replaces the same version of the same model and nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from jr_onnx.deploy.accelerator import check_accelerator
from jr_onnx.deploy.atomic import publish, staging, sync_tree
from jr_onnx.deploy.joining import joining
from jr_onnx.deploy.kappa_policy import check_kappa
from jr_onnx.deploy.manifest import MANIFEST_NAME, SIGNATURE_NAME, TritonSettings, glance, write_manifest
from jr_onnx.deploy.model import ModelFacts, read_model, require_truth
from jr_onnx.deploy.options import TritonOptions
from jr_onnx.deploy.releases import check_model
from jr_onnx.deploy.signing import check_private_key, sign
from jr_onnx.deploy.triton_config import CONFIG_NAME, LABELS_NAME, MODEL_NAME, Interface, config_text, interface_for
from jr_onnx.errors import InputError, ModelError, OutputError, RefusalError
from jr_onnx.modelfile import external_file
from jr_onnx.opened import OpenedFile
from jr_onnx.records import read_regular

_RESERVED = {MODEL_NAME, MANIFEST_NAME, SIGNATURE_NAME}


@dataclass(frozen=True, slots=True)
class Packaged:
    """What was packaged.

    Attributes:
        folder: The version's folder in the repository.
        notes: What the user should know: a kappa that stays fixed, an input that is not shown.
    """

    folder: Path
    notes: tuple[str, ...]


def package_triton(model: str | Path, repository: str | Path, options: TritonOptions) -> Packaged:
    """Add a model to a Triton model repository, which is made where there is none.

    Args:
        model: The ONNX file, retrofitted or not.
        repository: The repository's folder.
        options: Name, version and everything else.

    Raises:
        ModelError: The model cannot be read or carried by Triton, or its external data leaves its folder.
        RefusalError: The release cannot open it, nothing would draw its kappa, or the versions do not fit together.
        OutputError: The version exists already, or the repository cannot be written.
        InputError: An option does not fit the model.
    """
    source, root = Path(model), Path(repository)
    if options.sign_key is not None:
        check_private_key(options.sign_key)
    _check_repository(root)
    with staging(root) as aside:
        staged = aside / options.name
        version = staged / str(options.version)
        version.mkdir(parents=True)
        # The copy is what gets read: a source that changes meanwhile cannot slip in unchecked.
        _copy(source, version / MODEL_NAME, ModelError)
        facts = read_model(version / MODEL_NAME, named=source)
        if facts.external:
            _copy_external(source, facts, version)
            facts = read_model(version / MODEL_NAME, named=source)  # bounds of sites may lie in the external data
        require_truth(facts, source)
        interface, notes = _write_shared(staged, facts, options)
        settings = TritonSettings(
            release=options.release,
            device=options.placement.device,
            gpus=options.placement.gpus,
            server_path=options.op_library.server_path if options.op_library else None,
            joined=interface.joining.join,
            joining=interface.joining.reason,
        )
        manifest = write_manifest(
            version,
            kind="triton",
            name=options.name,
            version=options.version,
            provenance=facts.provenance,
            triton=settings,
        )
        if options.sign_key is not None:
            sign(manifest, version / SIGNATURE_NAME, options.sign_key)
        sync_tree(staged)
        _put_in_place(staged, root / options.name, options)
    return Packaged(root / options.name / str(options.version), notes)


def _check_repository(root: Path) -> None:
    if root.exists() and not root.is_dir():
        raise OutputError(f"the repository {root} is a file, expected a folder")
    if (root / CONFIG_NAME).exists():
        raise OutputError(
            f"the repository {root} holds {CONFIG_NAME}, so it is a model's own folder",
            hint=f"Give the folder above it: -o {root.parent}",
        )


def _write_shared(staged: Path, facts: ModelFacts, options: TritonOptions) -> tuple[Interface, tuple[str, ...]]:
    """Write what all versions share, and return the interface and the notes for the user."""
    check_model(facts.ir_version, facts.opset, options.release, "the model")
    notes = check_kappa(
        facts,
        with_library=options.op_library is not None,
        allow_fixed=options.allow_fixed_kappa,
        expose=options.expose_kappa,
    )
    notes += check_accelerator(facts, options.placement)
    model = staged / str(options.version) / MODEL_NAME
    insist = "--max-batch" if options.batching.max_size is not None else ""
    interface = interface_for(facts, options, lambda shown: joining(facts, shown, model, insist=insist))
    labels_output = _write_labels(staged, interface, options)
    library = _write_library(staged, facts, options)
    text = config_text(interface, options, labels_output=labels_output, library=library)
    (staged / CONFIG_NAME).write_text(text, encoding="utf-8")
    if facts.is_host_bound:
        notes += (
            "the model was optimised for the processor it was saved on and may fail or be slow on another; package the "
            "file that was given to the optimiser",
        )
    if interface.max_batch > 1 and not facts.draws_in_op:
        verb = "joins" if interface.joining.join else "does not join"
        notes += (f"Triton {verb} requests: {interface.joining.reason}",)
    return interface, notes


def _write_labels(staged: Path, interface: Interface, options: TritonOptions) -> str | None:
    """Copy the labels, and return the output they belong to."""
    if options.labels is None:
        return None
    try:
        text = read_regular(options.labels).decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read the labels {options.labels}: {error}") from None
    labels = text.replace("\r\n", "\n").removesuffix("\n").split("\n")
    empty = next((number for number, label in enumerate(labels, 1) if not label.strip()), None)
    if empty is not None:
        raise InputError(f"line {empty} of the labels {options.labels} is empty, expected one class name a line")
    sizes = {tensor.name: tensor.request_dims[-1] for tensor in interface.outputs}
    if options.labels_output is not None and options.labels_output not in sizes:
        raise InputError(f"labels were given for {options.labels_output!r}, expected one of {sorted(sizes)}")
    wanted = [options.labels_output] if options.labels_output is not None else list(sizes)
    fitting = [name for name in wanted if sizes[name] in (-1, len(labels))]
    if not fitting:
        raise InputError(
            f"{options.labels} holds {len(labels)} labels, expected as many as the last dimension of the output: "
            + ", ".join(f"{name!r} has {sizes[name]}" for name in wanted)
        )
    if len(fitting) > 1:
        raise InputError(f"{len(labels)} labels fit several outputs: {fitting}", hint="Name one with --labels-output")
    (staged / LABELS_NAME).write_text("".join(f"{label}\n" for label in labels), encoding="utf-8")
    return fitting[0]


def _write_library(staged: Path, facts: ModelFacts, options: TritonOptions) -> str | None:
    """Copy the operator library, and return its path on the server."""
    if options.op_library is None:
        missing = sorted(set(facts.custom_ops) - set(facts.fallbacks))
        if missing:
            raise RefusalError(
                f"the model uses the operator jr_onnx::{missing[0]} and holds no definition of it",
                hint="Add --op-library and --repository-path-on-server",
            )
        return None
    if not facts.custom_ops:
        raise InputError(
            "the operator library was asked for, but no node of the model uses it",
            hint="Leave --op-library out, or rewrite with --lowering custom",
        )
    from jr_onnx.deploy.op_library import find_library

    library = find_library(options.op_library.path, options.placement.device)
    _copy(library, staged / library.name, InputError)
    return str(PurePosixPath(options.op_library.server_path) / options.name / library.name)


def _copy_external(source: Path, facts: ModelFacts, version: Path) -> None:
    for location in facts.external:
        data = external_file(source.parent, location)
        relative = PurePosixPath(location)
        if str(relative) in _RESERVED:
            raise ModelError(
                f"the model keeps tensors in {location!r}, a name the package needs itself",
                hint="Save the model again with another name for its external data",
            )
        target = version / relative
        target.parent.mkdir(parents=True, exist_ok=True)
        _copy(data, target, ModelError)


def _copy(source: Path, target: Path, error_class: type[InputError]) -> None:
    """Copy bytes, not permissions: the server runs as another user and must be able to read them."""
    if not source.is_file():
        found = "is not a regular file" if source.exists() else "does not exist"
        raise error_class(f"{source} {found}")
    opened = OpenedFile(source, "a regular")
    try:
        with target.open("wb") as stream:
            opened.copy_to(stream, 0, opened.size)
    except OSError as error:
        raise OutputError(f"cannot copy {source}: {error.strerror}") from None
    opened.require_unchanged()


def _put_in_place(staged: Path, target: Path, options: TritonOptions) -> None:
    """Publish the model's folder, or only the version where the model's folder holds something else too."""
    if not target.exists():
        publish(staged, target, replace=False)
        return
    version = str(options.version)
    exists = (target / version).exists()
    if exists and not options.force:
        raise OutputError(
            f"{target / version} already exists",
            hint=f"Use --force to replace it, or --version {_next_version(target)} to add it beside",
        )
    shared = _shared_names(target, version)
    if exists and {entry.name for entry in target.iterdir()} <= shared | {version}:
        publish(staged, target, replace=True)
        return
    _check_shared(staged, target, version)
    publish(staged / version, target / version, replace=exists)


def _shared_names(target: Path, version: str) -> set[str]:
    """Return the names in the model's folder that belong to this version and may go with it."""
    paths = glance(target / version / MANIFEST_NAME).paths
    return {CONFIG_NAME} | {path for path in paths if "/" not in path}


def _check_shared(staged: Path, target: Path, version: str) -> None:
    """Refuse a version whose configuration, labels or library are not those the model's folder already has."""
    names = sorted(entry.name for entry in staged.iterdir() if entry.is_file())
    for name in names:
        there = target / name
        if not there.is_file() or there.read_bytes() != (staged / name).read_bytes():
            found = "differs from" if there.exists() else "is not"
            raise RefusalError(
                f"{name} of version {version} {found} the one in {target}, which all versions share",
                hint="Package it with the same options and the same interface, or under another --name",
            )
    if LABELS_NAME not in names and (target / LABELS_NAME).exists():
        raise RefusalError(
            f"{target} has {LABELS_NAME}, which all versions share, and version {version} has none",
            hint="Package it with the same --labels",
        )


def _next_version(target: Path) -> int:
    return (
        max(
            (int(entry.name) for entry in target.iterdir() if entry.name.isascii() and entry.name.isdecimal()),
            default=0,
        )
        + 1
    )
