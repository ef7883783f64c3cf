"""Save a retrofit as ONNX Runtime optimised it for this host, and know such a file again.

A file for the CPU holds kernels and layouts of one processor and one version of ONNX Runtime; blocks of channels, for
instance, have 16 or 8 channels by the processor. Elsewhere it would be wrong or would not open, so it is marked, and
`jr_onnx.InferenceSession` compares the mark with the host. A file for CUDA holds standard operators and those of the op
library, and runs wherever the library is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, NoReturn

import onnx

from jr_onnx import provenance
from jr_onnx.errors import InputError, ModelError, OutputError, RefusalError
from jr_onnx.modelfile import atomic_path, load, name_of, save
from jr_onnx.modelfile.wire import Buffer, Payloads
from jr_onnx.records import Record, dumps, loads
from jr_onnx.rewriter.agreement import require_agreement
from jr_onnx.rewriter.optimised import sizes_of_blocks
from jr_onnx.rewriter.scopes import all_nodes, all_scopes
from jr_onnx.runtime.host import Host, this_host
from jr_onnx.runtime.markers import NotFollowedError
from jr_onnx.runtime.ops_library import Target, library_path, require_blocks, status
from jr_onnx.runtime.optimizer import Optimised, optimise, size_of_block
from jr_onnx.runtime.options import copy_options
from jr_onnx.runtime.skeleton import read_skeleton
from jr_onnx.semantics import OP_DOMAIN

if TYPE_CHECKING:
    from onnxruntime import SessionOptions

METADATA_KEY = provenance.OPTIMISED_KEY
_ONE_FILE_LIMIT = 2_000_000_000  # protobuf holds 2 GiB
_CPU = "CPUExecutionProvider"


@dataclass(frozen=True, slots=True)
class Mark(Record):
    """What marks an optimised file.

    Attributes:
        host: Where it was made; a file for the CPU may be opened there only.
        jumps: How many jumps it has.
        needs_library: Whether it holds operators of the op library.
        target: What it is for.
        fused: How many jumps took the bias of a convolution along.
    """

    SCHEMA: ClassVar[str] = "jr_onnx.optimised/1"
    host: Host
    jumps: int
    needs_library: bool
    target: Target = "cpu"
    fused: int = 0

    def check(self, providers: Sequence[str]) -> None:
        """Compare with this host.

        Raises:
            InputError: It was optimised for another host, or the session is not for the CPU.
        """
        if self.target == "cuda":
            return
        if _CPU not in providers:
            raise InputError(f"the model was optimised for the CPU, the session asks for {', '.join(providers)}")
        here = this_host()
        for what, wanted, found in (
            ("ONNX Runtime", self.host.onnxruntime, here.onnxruntime),
            ("a processor of type", self.host.machine, here.machine),
            ("instruction sets", " ".join(self.host.features), " ".join(here.features)),
        ):
            if wanted != found:
                raise InputError(
                    f"the model was optimised for another host: for {what} {wanted}, here it is {found}",
                    hint="Run jr-onnx optimize on this host, or open the retrofit itself, which runs anywhere",
                )


def read_mark(model: onnx.ModelProto) -> Mark | None:
    """Return the mark of an optimised model, None for any other.

    Raises:
        ModelError: There is a mark that cannot be understood.
    """
    for entry in model.metadata_props:
        if entry.key == METADATA_KEY:
            try:
                return loads(Mark, entry.value)
            except InputError as error:
                raise ModelError(
                    f"the model's metadata entry {METADATA_KEY} cannot be understood: {error.message}",
                    hint="It was written by another version or edited; run jr-onnx optimize again",
                ) from None
    return None


def check_blocks(model: onnx.ModelProto) -> None:
    """Compare the blocks of channels that the jumps of an optimised model expect with those of this host.

    Raises:
        ModelError: Their sizes differ, so that channels would get each other's kappas, or this host's is not known.
        OpLibraryError: There are some, and the op library does not take them into account.
    """
    sizes = sizes_of_blocks(model)
    if not sizes:
        return
    require_blocks()
    found = f"the optimised model has jumps for blocks of {', '.join(map(str, sorted(sizes)))} channels"
    try:
        here = size_of_block()
    except NotFollowedError as error:
        raise ModelError(f"{found}, which cannot be checked here: {error}", hint="Use the retrofit itself") from error
    if sizes != {here}:
        raise ModelError(
            f"{found}, expected {here}, as ONNX Runtime has here",
            hint="The file was edited; run jr-onnx optimize again",
        )


def optimize(
    model: str | Path,
    output: str | Path,
    *,
    options: SessionOptions | None = None,
    use_library: bool | None = None,
    force: bool = False,
    target: Target = "cpu",
) -> Mark:
    """Optimise a retrofit for this host, or for CUDA, and save the result.

    Args:
        model: Path of the retrofit.
        output: Where to write; weights beyond 2 GB go into `<output>.data`.
        options: Session options for ONNX Runtime's optimiser, or None.
        use_library: Whether the result uses operators of the op library; None for: if it is built.
        force: Replace an existing output.
        target: cpu, for this host; or cuda, for any host with the op library, which the result needs.

    Returns:
        The mark of the written file.

    Raises:
        ModelError: The input is not a usable model, or no retrofit.
        RefusalError: The result would not be sure to be right, or the graph does not compute what its provenance says.
        OpLibraryError: The result would need the op library, which is not built.
        OutputError: The output exists or cannot be written.
    """
    path, destination = Path(model), Path(output)
    if destination.exists() and (not force or destination.samefile(path)):
        what = "is the source itself" if destination.samefile(path) else "exists"
        raise OutputError(
            f"{destination} {what}", hint="Choose another output (-o)" + ("" if force else ", or --force")
        )
    skeleton = read_skeleton(path)
    if skeleton is None:
        skeleton = _complain(path)
    if read_mark(skeleton.proto) is not None:
        raise RefusalError(f"{path} is optimised already", hint="Optimise the retrofit itself")
    agreement = require_agreement(skeleton.proto, str(path), skeleton.payloads, skeleton.folder)
    if agreement.record is None:
        raise ModelError(f"{path} is not a retrofit, so there are no jumps to place", hint="Run jr-onnx rewrite first")
    if use_library is False and target == "cuda":
        raise InputError(
            "a model for CUDA is written with operators of the op library", hint="Leave --no-op-library out"
        )
    if use_library or target == "cuda":
        library_path(target)
    has_library = status(target).loadable if use_library is None else use_library
    try:
        result = optimise(
            skeleton, agreement, copy_options(options), has_library=has_library, arguments={}, target=target
        )
    except NotFollowedError as error:
        raise RefusalError(
            f"{path} cannot be retrofitted after optimisation: {error}",
            hint="Deploy the retrofit itself, which ONNX Runtime optimises on opening as far as it can",
        ) from None
    mark = Mark(this_host(), result.jumps, _calls_library(result.proto), target, result.fused)
    entry = result.proto.metadata_props.add()
    entry.key, entry.value = METADATA_KEY, dumps(mark, indent=None)
    _write(result, destination)
    return mark


def default_output(model: Path) -> Path:
    """Return where the optimised form of a retrofit goes: `name.jr.onnx` -> `name.fast.onnx` beside it.

    Raises:
        ModelError: The path names no file.
    """
    name = name_of(model)
    for ending in (".jr.onnx", ".onnx"):
        if name.endswith(ending) and len(name) > len(ending):
            name = name.removesuffix(ending)
            break
    return model.with_name(f"{name}.fast.onnx")


def _calls_library(model: onnx.ModelProto) -> bool:
    return any(node.domain == OP_DOMAIN for node in all_nodes(model))


def _complain(path: Path) -> NoReturn:
    """Say what is wrong with a file that cannot be read."""
    load(path)
    raise ModelError(f"{path} is not an ONNX model")


def _write(result: Optimised, target: Path) -> None:
    """Write the model; its data goes into the same file while that fits.

    Raises:
        RefusalError: Some of the data lies in files of the source.
    """
    tensors = _external(result)
    total = sum(len(view) for _, _, view in tensors) + result.proto.ByteSize()
    if total < _ONE_FILE_LIMIT:
        payloads = Payloads()
        for tensor, _, view in tensors:
            tensor.data_location = onnx.TensorProto.DEFAULT
            del tensor.external_data[:]
            tensor.raw_data = payloads.put(view)
        save(result.proto, payloads, target)
        return
    data = target.with_name(target.name + ".data")
    starts = dict.fromkeys(result.files, 0)
    with atomic_path(data) as temporary, temporary.open("wb") as stream:
        for location, contents in result.files.items():
            starts[location] = stream.tell()
            stream.write(contents)
    for tensor, location, _ in tensors:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = data.name
            elif entry.key == "offset":
                entry.value = str(starts[location] + int(entry.value))
    save(result.proto, Payloads(), target)


def _external(result: Optimised) -> list[tuple[onnx.TensorProto, str, Buffer]]:
    """Return the tensors with external data, the file in memory and the contents of each."""
    found = []
    graphs = [scope.graph for scope in all_scopes(result.proto) if scope.graph is not None]
    for tensor in (tensor for graph in graphs for tensor in graph.initializer):
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            entries = {entry.key: entry.value for entry in tensor.external_data}
            location, start = entries["location"], int(entries.get("offset", 0))
            if location not in result.files:
                raise RefusalError(
                    f"the weights lie in {location} beside the source, and those of float16 models are not copied",
                    hint="Open the retrofit itself: on CUDA the session makes the same of it",
                )
            length = int(entries.get("length", len(result.files[location]) - start))
            found.append((tensor, location, result.files[location][start : start + length]))
    return found
