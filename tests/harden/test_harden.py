"""From a file to a hardened one: harder to fool, nothing else changed, the same on every run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import numpy as np
import onnx
import pytest
import torch

from jr_onnx import find_weights, provenance, torchnet
from jr_onnx.attack.suite.setup import AttackRequest
from jr_onnx.errors import DataError, InputError, JrError, OutputError, RefusalError, VerificationError
from jr_onnx.harden import ContestRequest, Hardening, HardenRequest, Recipe, harden, hold, worst_case
from jr_onnx.modelfile import load
from jr_onnx.records import dumps, loads
from jr_onnx.rewriter import find_sites
from jr_onnx.verifier import verify
from jr_onnx.weights.find import tensors_by_place
from tests.harden.conftest import images, untrained
from tests.weights import models

Make = Callable[..., HardenRequest]


def tensors_of(path: Path) -> dict[tuple[str, str], bytes]:
    return {place: tensor.SerializeToString() for place, tensor in tensors_by_place(onnx.load(path)).items()}


def test_a_hardened_model_is_harder_to_fool_and_nothing_but_its_weights_differs(request_of: Make) -> None:
    request = request_of()
    result = harden(request)
    before, best = result.hardening.rows[0], result.hardening.rows[result.hardening.best]
    assert best.robust > before.robust + 0.1
    source, output = onnx.load(request.model), onnx.load(result.output)
    old, new = tensors_of(request.model), tensors_of(Path(result.output))
    trained = {item.name for item in find_weights(request.model) if not item.is_statistic}
    assert {name for (_, name), data in new.items() if data != old["", name]} == trained
    for model in (source, output):
        model.graph.ClearField("initializer")
        model.ClearField("metadata_props")
    assert source == output
    assert sorted(item.name for item in Path(result.output).parent.iterdir()) == ["out.onnx"]


def test_the_file_says_how_it_was_trained(request_of: Make) -> None:
    request = request_of({"epochs": 1})
    result = harden(request)
    entries = {item.key: item.value for item in load(Path(result.output)).proto.metadata_props}
    told = loads(Hardening, entries[provenance.HARDENED_KEY])
    assert told.source_sha256 == load(request.model).sha256
    assert (told.recipe, told.data_sha256, told.best) == (request.recipe, request.train.digest, 1)
    assert [row.robust for row in told.rows] == [row.robust for row in result.hardening.rows]


def test_the_same_seed_gives_the_same_file_whatever_the_threads(request_of: Make, tmp_path: Path) -> None:
    found = []
    threads = torch.get_num_threads()
    for number in (1, 2):
        torch.set_num_threads(number)
        try:
            found.append(
                Path(harden(request_of({"epochs": 1}, output=tmp_path / f"{number}.onnx")).output).read_bytes()
            )
        finally:
            torch.set_num_threads(threads)
    assert found[0] == found[1]
    other = harden(request_of({"epochs": 1, "seed": 1}, output=tmp_path / "other.onnx"))
    assert Path(other.output).read_bytes() != found[0]


@pytest.mark.parametrize("moment", ["between epochs", "inside an epoch"])
def test_an_interrupted_run_goes_on_and_gives_the_same_file(
    moment: str, request_of: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = {"ramp": 0.9}  # so that a budget which still grows has to survive, too
    whole = Path(harden(request_of(recipe)).output).read_bytes()
    monkeypatch.setattr("jr_onnx.harden.trainer._SAVE_SECONDS", 0.0 if moment == "inside an epoch" else 1e9)

    class KilledError(Exception):
        pass

    def kill(found: object) -> None:
        if getattr(found, "step", 0) >= 19:
            raise KilledError

    again = request_of(recipe, output=tmp_path / "again.onnx")
    with pytest.raises(KilledError):
        harden(again, kill)
    steps: list[int] = []
    result = harden(again, lambda found: steps.append(found.step))
    assert steps[0] == (20 if moment == "inside an epoch" else 13)
    assert Path(result.output).read_bytes() == whole
    assert not list(tmp_path.glob(".*"))


def test_the_state_of_another_run_is_refused_unless_it_is_restarted(request_of: Make) -> None:
    def kill(found: object) -> None:
        if getattr(found, "step", 0) >= 13:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        harden(request_of(), kill)
    with pytest.raises(InputError, match="a run with other options"):
        harden(request_of({"seed": 1}))
    harden(request_of({"seed": 1, "epochs": 1}, restart=True))


@pytest.mark.parametrize("recipe", [{"method": "trades", "beta": 3.0}, {"method": "fgsm"}, {"norm": "l2", "eps": 0.6}])
def test_every_method_and_norm_makes_it_harder_to_fool(recipe: dict, request_of: Make) -> None:
    rows = harden(request_of(recipe)).hardening.rows
    assert max(row.robust for row in rows[1:]) > rows[0].robust


def test_a_model_can_be_hardened_with_the_jump_and_is_a_retrofit_then(request_of: Make) -> None:
    result = harden(request_of({"kappa": 0.2, "epochs": 2}))
    net = torchnet.load(result.output)
    assert set(net.kappas.values()) == {float(np.float32(0.2))}
    assert "exact" in result.hardening.surrogate
    assert "smooth" in result.hardening.surrogate
    assert provenance.HARDENED_KEY in {item.key for item in onnx.load(result.output).metadata_props}


def test_learned_kappas_move_and_stand_in_the_file(request_of: Make) -> None:
    result = harden(request_of({"kappa": 0.2, "learn_kappa": "per-site", "epochs": 2}))
    kappas = torchnet.load(result.output).kappas
    assert kappas == result.hardening.kappas
    assert all(kappa >= 0 and kappa != np.float32(0.2) for kappa in kappas.values())


def test_every_channel_learns_a_kappa_of_its_own(request_of: Make, tmp_path: Path) -> None:
    result = harden(request_of({"kappa": 0.2, "learn_kappa": "per-channel", "epochs": 2}))
    net = torchnet.load(result.output)
    assert net.kappas == result.hardening.kappas
    assert [len(kappa) for kappa in net.kappas.values()] == [8, 32]  # channels of the kernel, rows of the matrix
    for kappa in net.kappas.values():
        assert len(set(kappa)) > len(kappa) / 2  # a unit that nothing activates keeps its first value
        assert min(kappa) >= 0
    data = images(60, 3)
    request = request_of()
    attack = AttackRequest(
        model=request.model, data=data, preprocessing=request.preprocessing, device="cpu", plan=None, suite="adaptive",
        norm="linf", eps=0.1, out=tmp_path / "attacks",
    )  # fmt: skip
    contest = hold(ContestRequest({"original": request.model, "hardened": Path(result.output)}, data, attack))
    evaluation = contest.evaluations["hardened"]
    assert evaluation.run.kappas == net.kappas
    assert any("smooth" in entry.entry for entry in evaluation.models[1].entries)
    assert loads(Hardening, dumps(result.hardening)) == result.hardening


def test_kappas_per_channel_that_a_file_cannot_hold_are_refused_before_training(
    request_of: Make, tmp_path: Path
) -> None:
    from jr_onnx.harden.run import _try_kappas
    from tests.torchnet.models import with_functions

    path = tmp_path / "functions.onnx"
    path.write_bytes(with_functions().SerializeToString())
    kappas = {site.id: (0.1, 0.2, 0.3, 0.4) for site in find_sites(path).sites}
    with pytest.raises(JrError, match="Use --learn-kappa per-site"):
        _try_kappas(request_of(model=path), kappas)
    assert list(tmp_path.iterdir()) == [path]


def test_statistics_stay_unless_asked_for(request_of: Make) -> None:
    request = request_of({"batch_statistics": True, "epochs": 1})
    result = harden(request)
    old, new = tensors_of(request.model), tensors_of(Path(result.output))
    assert all(new["", name] != old["", name] for name in ("mean", "variance"))


def test_frozen_weights_stay(request_of: Make, tmp_path: Path) -> None:
    request = request_of({"epochs": 1}, only=("^w", "^k$"), freeze=("w1",))
    result = harden(request)
    old, new = tensors_of(request.model), tensors_of(Path(result.output))
    assert {name for (_, name), data in new.items() if data != old["", name]} == {"w2", "k"}
    frozen = harden(
        request_of(
            {"epochs": 1, "batch_statistics": True}, only=("^w2$",), freeze=("mean",), output=tmp_path / "b.onnx"
        )
    )
    assert set(frozen.hardening.trained) == {"w2", "variance"}


def test_statistics_that_are_not_there_are_not_estimated(request_of: Make, tmp_path: Path) -> None:
    path = tmp_path / "halves.onnx"
    path.write_bytes(models.of_halves().SerializeToString())
    with pytest.raises(InputError, match="no means and variances"):
        harden(request_of({"batch_statistics": True}, model=path))


def test_only_weights_that_lead_to_the_scores_are_called_trained(request_of: Make, tmp_path: Path) -> None:
    model = onnx.load(request_of().model)
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.ones((32, 2), np.float32), "spare"))
    model.graph.node.add(op_type="MatMul", input=["r", "spare"], output=["other"])
    model.graph.output.append(onnx.helper.make_tensor_value_info("other", onnx.TensorProto.FLOAT, ["N", 2]))
    path = tmp_path / "two.onnx"
    path.write_bytes(model.SerializeToString())
    assert "spare" in {item.name for item in find_weights(path)}
    result = harden(request_of({"epochs": 1}, model=path))
    assert "spare" not in result.hardening.trained
    assert tensors_of(Path(result.output))["", "spare"] == tensors_of(path)["", "spare"]


def test_a_finished_run_is_not_trained_again(request_of: Make) -> None:
    first = harden(request_of({"epochs": 1}))
    written = Path(first.output).read_bytes()
    moments: list[object] = []
    again = harden(request_of({"epochs": 1}), moments.append)
    assert moments == []
    assert again.hardening.best == first.hardening.best
    assert any("was not trained again" in note for note in again.notes)
    for request in (request_of({"epochs": 1}, restart=True), request_of({"epochs": 1}, train=images(600, 5))):
        with pytest.raises(OutputError, match="exists"):
            harden(request)
    assert Path(first.output).read_bytes() == written


def test_only_a_file_of_this_run_is_removed_where_its_proof_fails(
    request_of: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = request_of({"epochs": 1})

    def fail(*_: object) -> NoReturn:
        raise VerificationError("torch and ONNX Runtime differ")

    with monkeypatch.context() as patched:
        patched.setattr("jr_onnx.harden.run._proved", fail)
        with pytest.raises(VerificationError):
            harden(request)
    assert request.output is not None
    assert not request.output.exists()
    written = Path(harden(request).output).read_bytes()
    monkeypatch.setattr("jr_onnx.harden.run._proved", fail)
    with pytest.raises(VerificationError):
        harden(request)
    assert request.output.read_bytes() == written


def test_a_kappa_that_leaves_no_classifier_is_refused(request_of: Make, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"with the jump at kappa 1e\+30 shapes.onnx classifies .* Lower --kappa"):
        harden(request_of({"kappa": 1e30}))
    assert list(tmp_path.iterdir()) == []


def test_without_labels_the_answers_of_the_model_are_learned(request_of: Make) -> None:
    blind = replace(images(600, 1), labels=np.zeros(600, np.int64))
    rows = harden(
        request_of(train=blind, data=replace(images(200, 2), labels=np.zeros(200, np.int64)), labels_from="model")
    )
    assert rows.hardening.rows[0].clean == 1.0
    assert rows.hardening.rows[rows.hardening.best].robust > rows.hardening.rows[0].robust


def test_narrow_weights_are_trained_wide_and_rounded_back(tmp_path: Path, request_of: Make) -> None:
    model = models.of_halves()
    path = tmp_path / "halves.onnx"
    path.write_bytes(model.SerializeToString())
    random = np.random.default_rng(0)
    pixels = random.random((200, 1, 1, 6), dtype=np.float32)
    net = torchnet.load(path)
    labels = net(torch.from_numpy(pixels[:, 0, 0]).half()).argmax(1).numpy()
    data = replace(images(200, 1), pixels=pixels, labels=labels)
    result = harden(request_of({"epochs": 1}, model=path, train=data, data=data))
    assert {item.dtype for item in find_weights(result.output)} == {"float16"}


def test_a_loss_that_is_no_number_ends_the_training(request_of: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RefusalError, match=r"the loss is \S+ in batch \d+ of epoch 1"):
        harden(request_of({"rate": 1e30, "clip": 1e30}))
    from jr_onnx.harden import trainer

    loss_of, calls = trainer.loss_of, []

    def breaking(*arguments: object) -> torch.Tensor:
        calls.append(1)
        found = loss_of(*arguments)  # type: ignore[arg-type] # as they come
        return found * float("nan") if len(calls) > 24 else found

    monkeypatch.setattr(trainer, "loss_of", breaking)
    result = harden(request_of())
    assert "of epoch" in result.hardening.stopped
    assert "are kept" in result.hardening.stopped
    assert any("ended early" in note for note in result.notes)


def test_a_training_that_destroys_the_model_is_no_result(request_of: Make, tmp_path: Path) -> None:
    with pytest.raises(RefusalError, match=r"training destroyed the model: .* Lower the learning rate: --rate 0\.47"):
        harden(request_of({"rate": 30.0, "epochs": 4, "clip": 10.0}))
    assert list(tmp_path.iterdir()) == []  # so that the run with the lower rate is not told of another run's state


def test_training_ends_where_nothing_gets_better(request_of: Make) -> None:
    result = harden(request_of({"rate": 1e-12, "patience": 1, "epochs": 5}))
    assert "no better robust accuracy" in result.hardening.stopped
    assert len(result.hardening.rows) == 3
    assert any("not harder to fool" in note for note in result.notes)


def test_what_cannot_be_trained_is_refused_and_nothing_is_written(request_of: Make, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="leave none of the 10 weights"):
        harden(request_of(freeze=(".",)))
    for pattern in ("[", "a{99999999999}"):
        with pytest.raises(InputError, match="is not a valid regular expression"):
            harden(request_of(freeze=(pattern,)))
    blank = tmp_path / "untrained.onnx"
    blank.write_bytes(untrained())
    with pytest.raises(DataError, match="clean images correctly"):
        harden(request_of(model=blank))
    odd = images(600, 1)
    odd = replace(odd, labels=np.where(odd.labels == 0, 3, odd.labels), class_names=("a", "b", "c", "d"))
    with pytest.raises(DataError, match=r"has the label 3, and \S+ gives 3 scores"):
        harden(request_of(train=odd))
    with pytest.raises(InputError, match="kappas are learned from a first value"):
        request_of({"learn_kappa": "per-site"})
    blank.unlink()
    assert list(tmp_path.iterdir()) == []


def test_a_retrofit_and_a_quantised_file_are_refused_with_the_way_out(request_of: Make, tmp_path: Path) -> None:
    jumped = Path(harden(request_of({"kappa": 0.2, "epochs": 1})).output)
    with pytest.raises(RefusalError, match="jr-onnx restore"):
        harden(request_of(model=jumped, output=tmp_path / "more.onnx"))
    with pytest.raises(InputError, match=r"trained the weights of the model .* from before the training"):
        verify(jumped, request_of().model)
    quantised = tmp_path / "quantised.onnx"
    model = onnx.load(request_of().model)
    model.graph.node.add(op_type="DequantizeLinear", input=["q", "s"], output=["unused"])
    quantised.write_bytes(model.SerializeToString())
    with pytest.raises(RefusalError, match="is quantised"):
        harden(request_of(model=quantised, output=tmp_path / "more.onnx"))


def test_each_file_of_a_contest_is_attacked_itself(request_of: Make, tmp_path: Path) -> None:
    request = request_of()
    output = Path(harden(request).output)
    attack = AttackRequest(
        model=request.model,
        data=images(60, 3),
        preprocessing=request.preprocessing,
        device="cpu",
        plan=None,
        suite="adaptive",
        norm="linf",
        eps=0.1,
        out=tmp_path / "attacks",
    )
    contest = hold(ContestRequest({"original": request.model, "hardened": output}, images(60, 3), attack))
    original, hardened = contest.evaluations["hardened"].models
    assert worst_case(hardened).value > worst_case(original).value
    # What fools one file in torch fools that file in ONNX Runtime, but for images at the very border.
    for entry in (*original.entries, *hardened.entries):
        assert entry.disagreements <= 1, entry
    assert [item.torch_robust for item in original.entries] != [item.torch_robust for item in hardened.entries]


def test_a_destroyed_epoch_is_taken_back_and_the_rate_lowered(request_of: Make, tmp_path: Path) -> None:
    result = harden(request_of({"rate": 2.0, "epochs": 5, "clip": 10.0}))
    rows = result.hardening.rows
    assert rows[1].went_back
    assert rows[1].clean < rows[0].clean / 2
    assert not rows[-1].went_back
    assert rows[result.hardening.best].clean > 0.9


def test_the_budget_grows_for_a_model_that_withstands_nothing() -> None:
    recipe = Recipe(eps=0.2)
    assert recipe.ramp_for(1.0, 0.5) == 0
    assert recipe.ramp_for(0.9, 0.05) > 0
    assert replace(recipe, ramp=0.5).ramp_for(1.0, 0.5) == 0.5
    assert [recipe.within(share).eps for share in (0.25, 1.0)] == pytest.approx([0.05, 0.2])


def test_a_growing_budget_waits_for_a_network_that_cannot_follow(
    request_of: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    followed = harden(request_of({"ramp": 0.5, "epochs": 4})).hardening.rows
    assert [row.budget for row in followed] == pytest.approx([1.0, 0.5 + 1 / 24, 1.0, 1.0, 1.0])
    monkeypatch.setattr("jr_onnx.harden.budget._BEARABLE", 0.0)
    result = harden(request_of({"ramp": 0.5, "epochs": 2, "patience": 1}, replace=True))
    assert {row.budget for row in result.hardening.rows[1:]} == {1 / 12}
    assert any("could follow a growing budget only to 8% of 0.1" in note for note in result.notes)
