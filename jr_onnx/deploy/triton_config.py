"""The model configuration of Triton (`config.pbtxt`) for a model and the options of its package.

Everything is written out and nothing is left to the server's auto-completion, so that a server started with
`--disable-auto-complete-config` reads the same as any other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from jr_onnx.deploy.model import ModelFacts, TensorFacts
from jr_onnx.deploy.options import Batching, Placement, TritonOptions
from jr_onnx.deploy.textproto import Message, Symbol, render
from jr_onnx.element_types import ELEMENT_TYPES, type_name
from jr_onnx.errors import InputError, ModelError, RefusalError
from jr_onnx.rows import Joining

CONFIG_NAME = "config.pbtxt"
MODEL_NAME = "model.onnx"
LABELS_NAME = "labels.txt"
DEFAULT_MAX_BATCH = 32
DEFAULT_IMAGE_SIDE = 224

_TYPES = {
    row.number: "TYPE_" + ("STRING" if row.name == "string" else row.datatype) for row in ELEMENT_TYPES if row.datatype
}
"""What Triton's ONNX Runtime backend can carry; bfloat16 inputs and outputs, for one, it cannot."""


@dataclass(frozen=True, slots=True)
class Tensor:
    """An input or output as the configuration states it.

    Attributes:
        name: Its name.
        data_type: Triton's name of the element type.
        dims: Sizes without the batch dimension, -1 where open; what the model sees.
        optional: A request may leave it out.
    """

    name: str
    data_type: str
    dims: tuple[int, ...]
    optional: bool = False

    @property
    def request_dims(self) -> tuple[int, ...]:
        """What a request carries: Triton has no scalars, so a scalar travels as one element."""
        return self.dims or (1,)


@dataclass(frozen=True, slots=True)
class Interface:
    """The interface that clients see, and whether requests are joined.

    Attributes:
        inputs: Inputs.
        outputs: Outputs.
        max_batch: Largest batch; 0 for a model without a batch dimension.
        joining: Whether the server may join requests into one batch, and why. Not where the model draws its kappa: it
            draws once a run, and requests in one run would share what is to be drawn for each.
    """

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    max_batch: int
    joining: Joining


def interface_for(
    facts: ModelFacts, options: TritonOptions, may_join: Callable[[Sequence[TensorFacts]], Joining]
) -> Interface:
    """Decide what of the model's interface is shown to clients, and whether requests can be batched.

    Args:
        facts: The model.
        options: The options of the package.
        may_join: Decides for a model that takes batches whether requests with these inputs may be joined.

    Raises:
        ModelError: A tensor that Triton cannot carry.
        RefusalError: A batch was asked for that the model cannot take.
    """
    shown = facts.kappa_inputs if options.expose_kappa else ()
    inputs = [tensor for tensor in facts.inputs if not tensor.optional or tensor.name in shown]
    if not inputs:
        raise ModelError("the model takes no input, so there is nothing that a client could ask it")
    tensors = inputs + list(facts.outputs)
    for tensor in tensors:
        _check_tensor(tensor)
    fixed = next((tensor for tensor in tensors if (tensor.dims or (1,))[0] != -1), None)
    max_batch = options.batching.max_size
    if max_batch is None:
        max_batch = DEFAULT_MAX_BATCH if fixed is None else 0
    if max_batch and fixed is not None:
        raise RefusalError(
            f"batches of {max_batch} were asked for, but {fixed.name!r} has the shape {list(fixed.dims or ())}",
            hint="Export the model with a dynamic first dimension, or give --max-batch 0",
        )
    if max_batch and max(options.batching.preferred, default=0) > max_batch:
        raise InputError(
            f"the preferred batch sizes are {list(options.batching.preferred)}, expected at most {max_batch}"
        )
    if max_batch <= 1:
        decided = Joining(join=False, reason=f"the largest batch is {max_batch}")
    elif facts.draws_in_op:
        decided = Joining(join=False, reason="the model draws its kappa")
    else:
        decided = may_join(inputs)
    if options.batching.preferred and not decided.join:
        raise InputError(
            f"preferred batch sizes were asked for, but requests are not joined, because {decided.reason}",
            hint="Leave --preferred-batch out, or give --max-batch if you know that rows are independent",
        )
    skip = 1 if max_batch else 0
    return Interface(
        tuple(_as_configured(tensor, skip) for tensor in inputs),
        tuple(_as_configured(tensor, skip) for tensor in facts.outputs),
        max_batch,
        decided,
    )


def config_text(
    interface: Interface, options: TritonOptions, *, labels_output: str | None = None, library: str | None = None
) -> str:
    """Return the text of `config.pbtxt`.

    Args:
        interface: Inputs, outputs and batch, as `interface_for` decided.
        options: The options of the package.
        labels_output: The output that the packaged labels belong to.
        library: Absolute path of the operator library on the server.

    Raises:
        InputError: A warm-up shape is missing, does not fit, or names no input.
    """
    message: Message = [
        ("name", options.name),
        ("backend", "onnxruntime"),
        ("platform", "onnxruntime_onnx"),
        ("max_batch_size", interface.max_batch),
    ]
    batched = interface.max_batch > 0
    message += [("input", _tensor_fields(tensor, batched=batched)) for tensor in interface.inputs]
    for tensor in interface.outputs:
        labels: Message = [("label_filename", LABELS_NAME)] if tensor.name == labels_output else []
        message.append(("output", _tensor_fields(tensor, batched=batched) + labels))
    if options.all_versions:
        message.append(("version_policy", [("all", [])]))
    message.append(("instance_group", _instance_group(options.placement)))
    if interface.joining.join:
        message.append(("dynamic_batching", _dynamic_batching(options.batching)))
    message += _optimization(options.placement)
    if options.placement.threads is not None:
        value: Message = [("string_value", str(options.placement.threads))]
        message.append(("parameters", [("key", "intra_op_thread_count"), ("value", value)]))
    if library is not None:
        message.append(("model_operations", [("op_library_filename", library)]))
    return render(message + _warm_up(interface, options))


def _check_tensor(tensor: TensorFacts) -> None:
    if tensor.element_type not in _TYPES:
        raise ModelError(
            f"{tensor.name!r} is of type {type_name(tensor.element_type)}, "
            "which Triton's ONNX Runtime backend cannot carry",
            hint="Add a Cast to float32 or float16 at the model's border",
        )
    if tensor.dims is None:
        raise ModelError(
            f"the shape of {tensor.name!r} is unknown, not even its rank can be inferred",
            hint="Write the shape into the model: give every output a shape on export",
        )
    if 0 in tensor.dims:
        raise ModelError(f"{tensor.name!r} has the shape {list(tensor.dims)}, expected sizes of at least 1")


def _as_configured(tensor: TensorFacts, skip: int) -> Tensor:
    return Tensor(tensor.name, _TYPES[tensor.element_type], (tensor.dims or ())[skip:], tensor.optional)


def _tensor_fields(tensor: Tensor, *, batched: bool) -> Message:
    fields: Message = [
        ("name", tensor.name),
        ("data_type", Symbol(tensor.data_type)),
        ("dims", tensor.request_dims),
    ]
    if not tensor.dims and batched:
        # One number for each request: the model has no dimension but the batch. A scalar of a model without batches
        # is stated as [ 1 ] alone; Triton refuses an empty reshape there, and its back end knows what is meant.
        fields.append(("reshape", [("shape", ())]))
    if tensor.optional:
        fields.append(("optional", True))
    return fields


def _instance_group(placement: Placement) -> Message:
    kind = Symbol("KIND_GPU" if placement.device == "gpu" else "KIND_CPU")
    fields: Message = [("count", placement.instances), ("kind", kind)]
    if placement.gpus:
        fields.append(("gpus", placement.gpus))
    return fields


def _dynamic_batching(batching: Batching) -> Message:
    # No default_queue_policy: with one, Triton's throughput was measured to fall by a factor of six and more.
    fields: Message = [("preferred_batch_size", batching.preferred)] if batching.preferred else []
    return [*fields, ("max_queue_delay_microseconds", batching.delay_us)]


def _optimization(placement: Placement) -> Message:
    if placement.accelerator is None:
        return []
    accelerator: Message = [("name", placement.accelerator)]
    if placement.accelerator == "tensorrt":
        accelerator.append(("parameters", [("key", "precision_mode"), ("value", placement.precision)]))
    accelerators: Message = [("gpu_execution_accelerator", accelerator)]
    return [("optimization", [("execution_accelerators", accelerators)])]


def _warm_up(interface: Interface, options: TritonOptions) -> Message:
    """Return one zero-filled request of batch 1 and one of the largest batch."""
    if not options.warm_up.enabled:
        return []
    required = [tensor for tensor in interface.inputs if not tensor.optional]
    unknown = sorted(set(options.warm_up.shapes) - {tensor.name for tensor in required})
    if unknown:
        raise InputError(
            f"a warm-up shape was given for {unknown[0]!r}, which is not an input",
            hint=f"The inputs are {', '.join(repr(tensor.name) for tensor in required)}",
        )
    inputs: Message = []
    for tensor in required:
        value: Message = [
            ("data_type", Symbol(tensor.data_type)),
            ("dims", _warm_up_shape(tensor, options, batched=interface.max_batch > 0)),
            ("zero_data", True),
        ]
        inputs.append(("inputs", [("key", tensor.name), ("value", value)]))
    sizes = sorted({1, interface.max_batch or 1})
    return [("model_warmup", [("name", f"zeros of batch {size}"), ("batch_size", size), *inputs]) for size in sizes]


def _warm_up_shape(tensor: Tensor, options: TritonOptions, *, batched: bool) -> tuple[int, ...]:
    given = options.warm_up.shapes.get(tensor.name)
    dims = tensor.request_dims
    if given is not None:
        fits = len(given) == len(dims) and all(
            size >= 1 and wanted in (-1, size) for size, wanted in zip(given, dims, strict=True)
        )
        if not fits:
            raise InputError(f"the warm-up shape of {tensor.name!r} is {list(given)}, expected {list(dims)} without -1")
        return tuple(given)
    lead: tuple[int, ...] = ()
    if not batched and len(dims) > 1 and dims[0] == -1:  # the model's own batch dimension
        lead, dims = (1,), dims[1:]
    if -1 not in dims:
        return lead + dims
    if len(dims) == 3 and 1 <= dims[0] <= 4 and dims[1:] == (-1, -1):  # an image, channels first
        return (*lead, dims[0], DEFAULT_IMAGE_SIDE, DEFAULT_IMAGE_SIDE)
    dims = tensor.request_dims
    raise InputError(
        f"no warm-up shape is known for {tensor.name!r}, whose shape is {list(dims)}",
        hint=f"Give one, for instance --warmup-shape {tensor.name}:{','.join(str(abs(dim)) for dim in dims)}, "
        "or --no-warmup",
    )
