"""Whether a model may be packaged with its kappa: Triton feeds what the client sends and draws nothing itself.

A random kappa is of use only if something draws a new one for every request: the custom operator does, from the
operating system's entropy. A kappa that is a runtime input stays at its default, and RandomUniform in the graph
can be predicted from a few answers. Both are refused unless the user says that a fixed kappa will do.
"""

from __future__ import annotations

from jr_onnx.deploy.model import ModelFacts
from jr_onnx.errors import RefusalError

_FIX_HINT = "serve it with jr-onnx serve, which draws kappa for every request, or accept it with --allow-fixed-kappa"


def check_kappa(facts: ModelFacts, *, with_library: bool, allow_fixed: bool, expose: bool) -> tuple[str, ...]:
    """Refuse a model whose kappa would not be what it promises, and return notes for the user.

    Args:
        facts: The model.
        with_library: The custom operator's library goes into the package.
        allow_fixed: The user accepts a kappa that stays the same.
        expose: The user lets clients set kappa.

    Raises:
        RefusalError: Nothing would draw kappa, or clients would set it without `expose`.
    """
    random = facts.provenance.plan.random if facts.provenance else None
    if expose and not facts.kappa_inputs:
        raise RefusalError("kappa is not a runtime input of this model", hint="Omit --expose-kappa")
    if facts.draws_in_op or (random is not None and random.source == "op"):
        return _drawn_by_operator(facts, with_library=with_library, allow_fixed=allow_fixed)
    if random is not None and random.source == "graph":
        if not allow_fixed:
            raise RefusalError(
                "kappa is drawn by RandomUniform inside the graph, which a client can predict: as good as fixed",
                hint=f"Rewrite the model to draw it in the custom operator, {_FIX_HINT}",
            )
        return ("kappa is drawn by RandomUniform, which a client can predict",)
    if facts.kappa_inputs:
        return _taken_as_input(facts, is_random=random is not None, allow_fixed=allow_fixed, expose=expose)
    return ()


def _drawn_by_operator(facts: ModelFacts, *, with_library: bool, allow_fixed: bool) -> tuple[str, ...]:
    if with_library:
        return ("requests are not joined into batches, so that each gets a kappa of its own",)
    hint = "Add --op-library and --repository-path-on-server"
    if not allow_fixed:
        raise RefusalError(
            "the custom operator draws kappa, and its library would not be in the package: nothing would draw it",
            hint=hint,
        )
    missing = sorted(set(facts.custom_ops) - set(facts.fallbacks))
    if missing:
        raise RefusalError(
            f"the model has no definition of {missing[0]} to fall back on without the library", hint=hint
        )
    return ("without the library kappa stays at the value of the operator's definition in the file",)


def _taken_as_input(facts: ModelFacts, *, is_random: bool, allow_fixed: bool, expose: bool) -> tuple[str, ...]:
    name = facts.kappa_inputs[0]
    optional = {tensor.name for tensor in facts.inputs if tensor.optional}
    if is_random and expose:
        raise RefusalError(
            f"kappa is random, but the clients themselves would set it through the input {name!r}",
            hint=f"Omit --expose-kappa and {_FIX_HINT}",
        )
    if expose:
        return (f"clients can set kappa through the input {name!r}",)
    required = [kappa for kappa in facts.kappa_inputs if kappa not in optional]
    if required:
        raise RefusalError(
            f"the kappa input {required[0]!r} has no default, so it cannot stay hidden",
            hint="Rewrite the source model again with --kappa-input, which gives it one",
        )
    if allow_fixed:
        middle = " (the middle of the range)" if is_random else ""
        return (f"kappa stays at the default of the input {name!r}{middle}, which clients do not see",)
    if is_random:
        what = "random, but nothing would draw it there"
        hint = f"Rewrite with --random-source op, whose library draws it on the server (--op-library), {_FIX_HINT}"
    else:
        what = "a runtime input, but nothing would feed it there"
        hint = f"{_FIX_HINT[0].upper()}{_FIX_HINT[1:]}, or let clients set it with --expose-kappa"
    raise RefusalError(f"kappa is {what}: the input {name!r} would stay at its default", hint=hint)
