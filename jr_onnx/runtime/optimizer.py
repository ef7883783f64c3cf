"""Retrofit after ONNX Runtime's own optimisation, in memory.

    retrofit  --undo-->  source  --markers-->  [ONNX Runtime optimises]  --jumps-->  opened with optimisation off

For CUDA, ONNX Runtime makes only what holds for every provider (folded constants and normalisations), and the jumps
take the biases and residual sums before them along (`biases`); the provider's own optimisation follows on opening.
Where it is to keep convolutions in the layout (N, H, W, C), the provider itself optimises the model with the markers,
for its layout passes by standard element-wise operators and stops at a custom one; the jumps are written last.

A jump between two convolutions keeps ONNX Runtime from fusing the activation and from staying in its blocked layout,
which costs up to four times the ReLU model's time (docs/speed.md). So ONNX Runtime optimises a model that has an
operator it fuses at every site (`markers`), and the jump takes its place afterwards (`jumps`).

The optimised model comes back through anonymous files in memory: nothing is on a disk at any moment, and a process
that is killed leaves nothing behind.
"""

from __future__ import annotations

import contextlib
import functools
import mmap
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import onnx
from onnx import helper

from jr_onnx.errors import OpLibraryError, one_line
from jr_onnx.modelfile.wire import Buffer
from jr_onnx.provenance import Provenance
from jr_onnx.rewriter.agreement import Agreement
from jr_onnx.rewriter.scopes import Scope, all_scopes, scopes_by_path, substitute
from jr_onnx.runtime.biases import find_tails
from jr_onnx.runtime.channels import NCHWC, find_blocks, require_no_transpose
from jr_onnx.runtime.jumps import kappa_source, write_jumps
from jr_onnx.runtime.markers import NotFollowedError, find_markers, insert_markers
from jr_onnx.runtime.ops_library import Target, require_blocks
from jr_onnx.runtime.providers import CPU, CUDA, ProviderChoice
from jr_onnx.runtime.running import SessionOptions
from jr_onnx.runtime.skeleton import Feed, Skeleton, can_take_files, feed_of, has_entry

_EXTERNAL_FILE = "session.optimized_model_external_initializers_file_name"
_EXTERNAL_FROM = "session.optimized_model_external_initializers_min_size_in_bytes"
_NO_PREPACKING = "session.disable_prepacking"
_SMALLEST_EXTERNAL_BYTES = 4096
_ERRORS_ONLY = 3


@dataclass
class Optimised:
    """A retrofit after optimisation.

    Attributes:
        proto: The graph; large initializers refer to `files`.
        files: Contents of the external data, by location.
        jumps: How many jumps were written.
        fused: How many of them took a bias along.
        folder: What external data that is not in `files` is relative to.
    """

    proto: onnx.ModelProto
    files: dict[str, Buffer]
    jumps: int = 0
    fused: int = 0
    folder: Path | None = None

    def feed(self) -> Feed:
        """Return the model as ONNX Runtime takes it."""
        return Feed(self.proto.SerializeToString(), self.files, self.folder)


def optimise(
    skeleton: Skeleton,
    agreement: Agreement,
    options: SessionOptions,
    *,
    has_library: bool,
    arguments: Mapping[str, object],
    target: Target = "cpu",
    nhwc: Mapping[str, object] | None = None,
) -> Optimised:
    """Optimise a retrofit and put its jumps back in.

    Args:
        skeleton: The retrofit; its proto is used up.
        agreement: What comparing its graph with its provenance found: only where they agree are the jumps that are
            written from the provenance those of the graph.
        options: Session options of the caller's making, used up.
        has_library: Whether the op library will be registered where the result is opened.
        arguments: Further arguments for ONNX Runtime's session.
        target: What the result is for: the CPU, or CUDA, which needs the op library.
        nhwc: Options of the CUDA provider that is to keep convolutions in the layout (N, H, W, C); None without it.

    Raises:
        NotFollowedError: The result would not be sure to be right; the message says why.
    """
    proto, record = skeleton.proto, agreement.record
    if record is None or agreement.original is None:
        raise NotFollowedError(f"its graph does not compute what its provenance says: {agreement.reason}")
    for site in record.sites if target == "cpu" else ():
        if site.dtype != "float32":
            raise NotFollowedError(f"site {site.id} is {site.dtype}, and ONNX Runtime's CPU kernels fuse float32 only")
    if nhwc is not None and any(isinstance(site.kappa, tuple) for site in record.sites):
        raise NotFollowedError("a site has a kappa per channel, and prefer_nhwc moves the channels")
    about = _about(proto)
    source = kappa_source(proto, record, has_library=has_library)
    proto.CopyFrom(agreement.original)
    markers = insert_markers(proto, record.sites, skeleton.folder)
    require_no_transpose(proto, markers.placed)
    _remove_unread(proto, record)
    result = _without_jumps(skeleton, options, arguments, target, nhwc)
    found = find_markers(result.proto, markers)
    tails = find_tails(result.proto, found) if target == "cuda" else {}
    blocks = find_blocks(result.proto, found, size_of_block)
    if blocks and has_library:
        try:
            require_blocks()
        except OpLibraryError as error:
            raise NotFollowedError(f"a site has a kappa per channel, and {error}") from error
    write_jumps(result.proto, found, source, tails, blocks)
    _describe(result.proto, about)
    return replace(result, jumps=len(found), fused=len(tails))


def _remove_unread(model: onnx.ModelProto, record: Provenance) -> None:
    """Remove what the retrofit did without (the comparison and mask of a fused jump): ONNX Runtime would run it."""
    scopes = scopes_by_path(model)
    gone: dict[Scope, dict[int, None]] = {}
    for path, index, _ in record.undo.nodes_removed:
        gone.setdefault(scopes[path], {})[index] = None
    substitute(gone, lambda _node, _none: ())


def _without_jumps(
    skeleton: Skeleton,
    options: SessionOptions,
    arguments: Mapping[str, object],
    target: Target,
    nhwc: Mapping[str, object] | None,
) -> Optimised:
    """Optimise the model with the markers, for CUDA only so far as the docstring of this module says."""
    import onnxruntime

    providers: list[ProviderChoice] = [CPU]
    if nhwc is not None:  # a session that lays out the model and never runs it
        providers.insert(0, (CUDA, {name: nhwc[name] for name in ("device_id", "prefer_nhwc") if name in nhwc}))
    elif target == "cuda":
        if _has_half_types(skeleton.proto):  # the CPU's session would add conversions
            feed = feed_of(skeleton)
            return Optimised(onnx.ModelProto.FromString(feed.data), feed.files, folder=feed.folder)
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    return _run_optimiser(feed_of(skeleton), options, arguments, providers)


@functools.cache
def size_of_block() -> int:
    """Return how many channels are a block in ONNX Runtime's layout on this processor.

    ONNX Runtime does not say so, but it pads the weights of a convolution with one channel to a whole block.
    """
    import onnxruntime

    weight = helper.make_tensor("w", onnx.TensorProto.FLOAT, [1, 1, 1, 1], [1.0])
    values = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1, 1, 1, 1]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Conv", ["x", "w"], ["y"])], "g", values[:1], values[1:], [weight])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=7)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    proto = _run_optimiser(Feed(model.SerializeToString()), options, {}, [CPU]).proto
    weights = {tensor.name: tensor for tensor in proto.graph.initializer}
    nodes = [node for node in proto.graph.node if node.domain == NCHWC and node.op_type == "Conv"]
    sizes = [weights[node.input[1]].dims[0] for node in nodes]
    if len(sizes) != 1:
        raise NotFollowedError("ONNX Runtime's blocked layout has blocks of unknown size")
    return int(sizes[0])


def _has_half_types(model: onnx.ModelProto) -> bool:
    """Tell whether float16 or bfloat16 occurs, for which the CPU lacks kernels and ONNX Runtime inserts Casts."""
    half = (onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16)
    values = [value.type.tensor_type.elem_type for value in (*model.graph.input, *model.graph.output)]
    weights = [tensor.data_type for tensor in model.graph.initializer]
    scopes = all_scopes(model)
    attributes = [attribute for scope in scopes for node in scope.nodes for attribute in node.attribute]
    casts = [attribute.i for attribute in attributes if attribute.name == "to"]
    constants = [attribute.t.data_type for attribute in attributes if attribute.HasField("t")]
    return any(kind in half for kind in (*values, *weights, *casts, *constants))


def _about(model: onnx.ModelProto) -> onnx.ModelProto:
    """Copy what a model says about itself."""
    about = onnx.ModelProto(ir_version=model.ir_version, metadata_props=model.metadata_props)
    for name in ("producer_name", "producer_version", "domain", "model_version", "doc_string"):
        if model.HasField(name):
            setattr(about, name, getattr(model, name))
    about.graph.name, about.graph.doc_string = model.graph.name, model.graph.doc_string
    return about


def _describe(model: onnx.ModelProto, about: onnx.ModelProto) -> None:
    """Put what `_about` copied into the optimised model."""
    ir_version = max(model.ir_version, about.ir_version)
    for name in ("producer_name", "producer_version", "domain", "model_version", "doc_string", "metadata_props"):
        model.ClearField(name)
    model.MergeFrom(about)
    model.ir_version = ir_version


def _run_optimiser(
    feed: Feed, options: SessionOptions, arguments: Mapping[str, object], providers: Sequence[ProviderChoice]
) -> Optimised:
    """Let ONNX Runtime optimise a model and return what it serialises."""
    import onnxruntime

    with _memory_file("model") as model_file, _memory_file("weights") as weights_file:
        options.optimized_model_filepath = _path(model_file)
        options.enable_profiling = False
        # It warns that the result is for this host only, which is the point.
        options.log_severity_level = max(options.log_severity_level, _ERRORS_ONLY)
        if not has_entry(options, _NO_PREPACKING):
            options.add_session_config_entry(_NO_PREPACKING, "1")
        if can_take_files():
            # ONNX Runtime writes it beside the model's path, so the number of the descriptor is the file's name.
            options.add_session_config_entry(_EXTERNAL_FILE, str(weights_file))
            options.add_session_config_entry(_EXTERNAL_FROM, str(_SMALLEST_EXTERNAL_BYTES))
        feed.prepare(options)
        try:
            onnxruntime.InferenceSession(feed.data, options, providers=providers, **{**arguments, "enable_fallback": 0})
        except Exception as error:
            raise NotFollowedError(f"ONNX Runtime cannot optimise the restored model: {one_line(error)}") from error
        proto = onnx.ModelProto()
        proto.ParseFromString(_contents(model_file))
        has_weights = os.fstat(weights_file).st_size > 0
        return Optimised(proto, {str(weights_file): _contents(weights_file)} if has_weights else {})


@contextlib.contextmanager
def _memory_file(what: str) -> Iterator[int]:
    """Give the descriptor of an anonymous file."""
    try:
        descriptor = os.memfd_create(f"jr_onnx_{what}", os.MFD_CLOEXEC)
    except (AttributeError, OSError) as error:
        raise NotFollowedError(f"this system has no anonymous files: {error}") from error
    try:
        if not os.path.exists(_path(descriptor)):  # noqa: PTH110 - a Path would follow the link to nowhere
            raise NotFollowedError("/proc is not mounted, so ONNX Runtime cannot be told where to write")
        yield descriptor
    finally:
        os.close(descriptor)


def _path(descriptor: int) -> str:
    return f"/proc/self/fd/{descriptor}"


def _contents(descriptor: int) -> memoryview:
    # Filled at once: 25,000 page faults for 100 MB took longer than the copy they serve.
    return memoryview(mmap.mmap(descriptor, 0, flags=mmap.MAP_SHARED | mmap.MAP_POPULATE, prot=mmap.PROT_READ))
