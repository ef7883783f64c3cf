from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from jr_onnx.data import PRESETS, ImageData, load
from jr_onnx.errors import InputError
from jr_onnx.records import dumps, load_file, loads
from models import NAMES, build, entry, load_weights
from tools.training import Recipe, TrainingRecord, TrainingRun, accuracy, recipe, weights_digest
from tools.training.batches import Batches, epoch_generator, mix_adversarial
from tools.training.recipe import Augmentation
from tools.training.train import train

SHORT = replace(recipe("digits_cnn", robust=True), epochs=3)
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    # The last bits of a sum depend on the number of threads.
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def digits() -> ImageData:
    return load("digits", split="train", limit=200)


def test_two_runs_give_the_same_weights_and_another_seed_gives_others(tmp_path: Path) -> None:
    first, second = (train(SHORT, "digits", tmp_path / f"{name}.pt", limit=200) for name in "ab")
    assert first.weights_digest == second.weights_digest
    other = train(replace(SHORT, seed=2), "digits", tmp_path / "c.pt", limit=200)
    assert other.weights_digest != first.weights_digest
    assert not list(tmp_path.glob("*.state*")), "a finished run leaves no state"


def test_a_stopped_run_goes_on_to_the_same_weights(tmp_path: Path, digits: ImageData) -> None:
    whole = TrainingRun(SHORT, digits, None, tmp_path / "whole.state", CPU)
    whole.run(lambda _row, _left: None)

    def stop(row: object, left: int) -> None:
        if left == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        TrainingRun(SHORT, digits, None, tmp_path / "cut.state", CPU).run(stop)
    resumed = TrainingRun(SHORT, digits, None, tmp_path / "cut.state", CPU)
    assert len(resumed.rows) == 2
    told: list[int] = []
    resumed.run(lambda _row, left: told.append(left))
    assert told == [0]
    assert weights_digest(resumed.model.state_dict()) == weights_digest(whole.model.state_dict())
    assert [row.loss for row in resumed.rows] == [row.loss for row in whole.rows]


def test_a_state_of_another_run_or_a_damaged_one_is_refused(tmp_path: Path, digits: ImageData) -> None:
    path = tmp_path / "run.state"
    TrainingRun(replace(SHORT, epochs=1), digits, None, path, CPU).run(lambda _row, _left: None)
    for plan, data in ((SHORT, digits), (replace(SHORT, epochs=1), digits.take(range(100)))):
        with pytest.raises(
            InputError, match=r"with other options, another model or other data\. Start over with --restart"
        ):
            TrainingRun(plan, data, None, path, CPU)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(InputError, match=r"cannot resume from .*run.state"):
        TrainingRun(SHORT, digits, None, path, CPU)


def test_the_record_says_what_was_done_and_reads_back(tmp_path: Path) -> None:
    plan = replace(recipe("digits_mlp"), epochs=25)
    record = train(plan, "digits", tmp_path / "mlp.pt")
    assert load_file(TrainingRecord, tmp_path / "mlp.json") == record
    assert record.test_accuracy > 0.95
    model = build("digits_mlp")
    load_weights(model, tmp_path / "mlp.pt")
    assert weights_digest(model.state_dict()) == record.weights_digest
    test = load("digits")
    assert accuracy(model, Batches(test, PRESETS["none"], CPU)) == record.test_accuracy
    assert record.test_digest == test.digest
    assert record.epochs[-1].loss < record.epochs[0].loss / 5
    assert [row.epoch for row in record.epochs] == list(range(25))


def test_training_on_the_validation_split_says_so(tmp_path: Path) -> None:
    record = train(replace(SHORT, epochs=1), "digits", tmp_path / "cnn.pt", with_validation=True)
    assert (record.train_count, record.validation_count) == (1066 + 358, 0)
    assert math.isnan(record.validation_accuracy)
    assert math.isnan(load_file(TrainingRecord, tmp_path / "cnn.json").validation_accuracy)


def test_a_diverging_run_is_an_error_and_not_a_result(tmp_path: Path) -> None:
    plan = replace(recipe("digits_mlp"), optimizer="sgd", rate=1e30, epochs=2)
    with pytest.raises(InputError, match=r"the loss became (nan|inf) in epoch"):
        train(plan, "digits", tmp_path / "mlp.pt", limit=200)
    assert not (tmp_path / "mlp.pt").exists()


def test_adversarial_images_replace_the_first_part_of_a_batch(digits: ImageData) -> None:
    plan = Recipe("digits_cnn", 1, 0.1, (), 1.0, adversarial_fraction=0.3, adversarial_eps=0.1)
    model = build("digits_cnn").train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    images, labels = torch.from_numpy(digits.images[:128]), torch.from_numpy(digits.labels[:128])
    mixed = mix_adversarial(model, images, labels, plan)
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(mixed[38:], images[38:]), "38 is the whole part of 0.3 * 128"
    moved = (mixed[:38] - images[:38]).abs()
    # A pixel at the end of the range can move one way only.
    assert float(moved.max()) == pytest.approx(0.1)
    assert all(float(image.max()) > 0 for image in moved)
    assert float(mixed.min()) >= float(images.min())
    assert float(mixed.max()) <= float(images.max())
    model.eval()
    clean = nn.functional.cross_entropy(model(images[:38]), labels[:38])
    assert nn.functional.cross_entropy(model(mixed[:38]), labels[:38]) > clean


def test_without_a_fraction_the_batch_stays(digits: ImageData) -> None:
    images = torch.from_numpy(digits.images[:8])
    plan = Recipe("digits_cnn", 1, 0.1, (), 1.0)
    assert mix_adversarial(build("digits_cnn"), images, torch.zeros(8, dtype=torch.int64), plan) is images


@pytest.mark.parametrize(("kind", "margin", "mirrors"), [("none", 0, 0), ("shift", 1, 0), ("crop_flip", 4, 1)])
def test_augmentation_moves_by_so_many_pixels(kind: Augmentation, margin: int, mirrors: int) -> None:
    dots = np.zeros((400, 1, 20, 20), np.float32)
    dots[:, :, 10, 5] = 1.0
    batches = Batches(ImageData.from_arrays(dots, [0] * 400), PRESETS["none"], CPU)
    ((moved, _),) = batches.epoch(replace(SHORT, batch=400, augmentation=kind), 0)
    rows, columns = (moved[:, 0].amax(axis).argmax(1).tolist() for axis in (2, 1))
    assert set(rows) == set(range(10 - margin, 11 + margin))
    assert set(columns) == {side + step for side in (5, 14)[: 1 + mirrors] for step in range(-margin, margin + 1)}


def test_an_epoch_takes_every_image_at_most_once_and_drops_the_rest(digits: ImageData) -> None:
    plan = replace(SHORT, batch=64, augmentation="none")
    batches = Batches(digits, PRESETS["none"], CPU)
    seen = torch.cat([images for images, _ in batches.epoch(plan, 0)])
    assert len(seen) == 192
    known = {image.tobytes() for image in digits.images}
    assert {image.numpy().tobytes() for image in seen} <= known
    assert len({image.numpy().tobytes() for image in seen}) == 192
    again = torch.cat([images for images, _ in batches.epoch(plan, 0)])
    other = torch.cat([images for images, _ in batches.epoch(plan, 1)])
    assert torch.equal(again, seen)
    assert not torch.equal(other, seen)
    assert len(next(batches.epoch(replace(plan, batch=1000), 0))[1]) == 200


def test_images_are_normalised_as_the_preset_says() -> None:
    data = ImageData.from_arrays([[[[0.25]]], [[[1.0]]]], [0, 1])
    ((images, labels),) = Batches(data, PRESETS["mnist"], CPU).in_order()
    assert images.numpy() == pytest.approx(PRESETS["mnist"].apply(data.images), abs=1e-6)
    assert labels.tolist() == [0, 1]


def test_epochs_have_generators_of_their_own() -> None:
    draws = {int(torch.randint(0, 2**62, (), generator=epoch_generator(s, e))) for s in range(3) for e in range(9)}
    assert len(draws) == 27


def test_the_recipes_are_those_of_the_paper() -> None:
    lenet, alex, wide = (recipe(name, schedule="paper") for name in ("lenet_like", "alex_like", "wide_resnet"))
    for plan in (lenet, alex, wide):
        assert (plan.optimizer, plan.batch, plan.weight_decay) == ("sgd", 128, 5e-4)
    assert [lenet.rate_at(epoch) for epoch in (0, 29, 30, 60, 80, 89)] == pytest.approx(
        [0.02, 0.02, 0.004, 0.0008, 0.00016, 0.00016]
    )
    assert [wide.rate_at(epoch) for epoch in (0, 30, 60, 90, 119)] == pytest.approx([0.1, 0.01, 1e-3, 1e-4, 1e-4])
    assert (lenet.epochs, alex.epochs, wide.epochs) == (90, 90, 120)
    robust = recipe("alex_like", robust=True, schedule="paper")
    assert (robust.epochs, robust.decay_epochs) == (120, (30, 60, 90))
    assert (robust.adversarial_fraction, robust.adversarial_eps) == (0.6, 0.031)
    assert recipe("lenet_like", robust=True).adversarial_eps == 0.3


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_is_a_record(name: str) -> None:
    plan = recipe(name, robust=True)
    assert plan.model == name
    assert plan.schedule == ("one-cycle" if entry(name).data == "cifar10" else "paper")
    assert loads(Recipe, dumps(plan)) == plan


@pytest.mark.parametrize(
    "changes",
    [
        {"epochs": 0},
        {"rate": 0.0},
        {"batch": 0},
        {"adversarial_fraction": 1.5},
        {"adversarial_eps": -1.0},
        {"warmup": 1.0},
        {"label_smoothing": -0.1},
        {"schedule": "one-cycle", "time_limit_s": 0.0},
    ],
)
def test_a_recipe_that_trains_nothing_is_refused(changes: dict[str, float]) -> None:
    with pytest.raises(InputError, match="expected"):
        replace(SHORT, **changes)  # type: ignore[arg-type]
