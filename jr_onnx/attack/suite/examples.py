"""Keep the images that a report shows: the attacks are repeated on just these.

Adversarial examples of all images would be far too much to keep. Random numbers are keyed by seed and sample, so an
attack finds on a few images what it found on all of them; what is kept is measured again all the same.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from jr_onnx.attack.suite.contender import Contender
from jr_onnx.attack.suite.run import EvaluationJob, Runner
from jr_onnx.evaluation.choosing import choose
from jr_onnx.evaluation.examples import Choice, Example, ExampleSet, ExampleTable
from jr_onnx.evaluation.outcome import Outcomes
from jr_onnx.evaluation.store import Store
from jr_onnx.evaluation.summary import Evaluation

_Found = dict[tuple[str, str, int], tuple[npt.NDArray[np.float32], bool, float]]
"""(model label, entry, index) -> adversarial image, whether it fools the served file, size of the perturbation."""


def keep_examples(
    work: EvaluationJob, store: Store, evaluation: Evaluation, outcomes: Outcomes, class_names: tuple[str, ...]
) -> None:
    """Choose the images to show, and save them with their adversarial examples; those that are there already, too.

    Args:
        work: What was run.
        store: Its folder.
        evaluation: What was found.
        outcomes: Model label -> entry -> outcome, on the samples that are finished.
        class_names: Name of every class.

    Raises:
        InputError: The folder holds examples that cannot be read.
    """
    choices = choose(evaluation, outcomes)
    kept = store.examples()
    if kept is not None and {example.choice for example in kept.table.examples} == set(choices):
        return
    contenders = {contender.label: contender for contender in work.contenders}
    entries = {entry.name: entry for entry in work.entries}
    found: _Found = {}
    for label, name in dict.fromkeys((choice.model, choice.entry) for choice in choices):
        indices = sorted({choice.index for choice in choices if (choice.model, choice.entry) == (label, name)})
        outcome, images = Runner(work, indices).outcome(contenders[label], entries[name])
        for row, index in enumerate(indices):
            found[label, name, index] = images[row], outcome.served_success[row], outcome.distance[row]
    if choices:
        store.put_examples(_example_set(work, contenders, evaluation.run.norm, choices, found, class_names))


def _example_set(
    work: EvaluationJob,
    contenders: dict[str, Contender],
    norm: str,
    choices: Sequence[Choice],
    found: _Found,
    class_names: tuple[str, ...],
) -> ExampleSet:
    results = [found[choice.model, choice.entry, choice.index] for choice in choices]
    adversarial = np.stack([image for image, _, _ in results])
    answers = {label: contender.served.answers(adversarial) for label, contender in contenders.items()}
    examples = []
    for row, (choice, (_, fooled, distance)) in enumerate(zip(choices, results, strict=True)):
        other = next((label for label in contenders if label != choice.model), None)
        examples.append(
            Example(
                choice=choice,
                label=int(work.labels[choice.index]),
                answer=int(answers[choice.model][row]),
                other_answer=None if other is None else int(answers[other][row]),
                fooled=fooled,
                norm=norm,
                distance=distance,
            )
        )
    clean = work.images[[choice.index for choice in choices]]
    return ExampleSet(ExampleTable(class_names, tuple(examples)), clean, adversarial)
