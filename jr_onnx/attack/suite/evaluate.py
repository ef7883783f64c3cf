"""The whole evaluation in one call: attack both models, store every outcome, sum up."""

from __future__ import annotations

from collections.abc import Callable

from jr_onnx.attack.suite.examples import keep_examples
from jr_onnx.attack.suite.run import Progress, run
from jr_onnx.attack.suite.setup import AttackRequest, prepare
from jr_onnx.evaluation.store import Store, merged
from jr_onnx.evaluation.summary import Evaluation, evaluate, finished
from jr_onnx.modelfile import atomic_write
from jr_onnx.records import dumps


def evaluate_robustness(
    request: AttackRequest,
    *,
    notify: Callable[[Progress], None] | None = None,
    warn: Callable[[str], None] | None = None,
) -> Evaluation:
    """Attack a model and its retrofit with the same suite, and sum up the results with a masking verdict.

    Results are saved in `request.out` as they come, so that an interrupted run resumes; the evaluation is saved there
    as evaluation.json, and beside it the images that a report shows.

    Args:
        request: Models, data, suite, budget and where the results go.
        notify: Called before the first unit of work and after each.
        warn: Called with everything that the reader of the results should know before the run starts.

    Raises:
        InputError: Model, data and options do not fit together, or the folder holds another run.
        VerificationError: A torch module does not compute what ONNX Runtime computes.
    """
    prepared = prepare(request)
    if warn is not None:
        for note in prepared.notes:
            warn(note)
    store = Store(request.out)
    store.open(prepared.record)
    run(prepared.work, store, notify or (lambda _: None))
    record, outcomes = merged([request.out])
    evaluation = evaluate(record, outcomes)
    keep_examples(prepared.work, store, evaluation, finished(record, outcomes), request.data.class_names)
    atomic_write(request.out / "evaluation.json", [dumps(evaluation).encode()])
    return evaluation
