"""`jr-onnx package` and `jr-onnx verify-package`, as a person types them."""

from __future__ import annotations

import importlib
import subprocess
import sys
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import click
import onnx
import pytest

from tests.deploy.builders import classifier, make_keys, save

Jr = Callable[..., Any]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return save(classifier(), tmp_path / "digits.onnx")


@pytest.fixture
def repository(tmp_path: Path, model: Path, jr: Jr) -> Path:
    root = tmp_path / "repository"
    assert jr("package", "triton", model, "-o", root).exit_code == 0
    return root


def test_the_folder_goes_to_stdout_and_the_next_step_to_stderr(jr: Jr, tmp_path: Path, model: Path) -> None:
    root = tmp_path / "repository"
    outcome = jr("package", "triton", model, "-o", root)
    assert outcome.exit_code == 0
    assert outcome.out == f"{root / 'digits' / '1'}\n"
    assert outcome.err == (
        "note: Triton joins requests: the rows of a batch are proved independent, and a trial agrees\n"
        f"next: jr-onnx verify-package {root}\n"
    )


def test_every_option_reaches_the_package(jr: Jr, tmp_path: Path, model: Path) -> None:
    labels = tmp_path / "labels.txt"
    labels.write_text("".join(f"{number}\n" for number in range(10)), encoding="utf-8")
    words = f"""--name net --version 3 --triton-release 25.12 --max-batch 16 --preferred-batch 4,8 --batch-delay-us 100
        --provider tensorrt --instances 2 --gpus 0,1 --precision FP16 --warmup-shape x=3,8,8
        --labels {labels} --labels-output y --all-versions --threads 3""".split()
    outcome = jr("package", "triton", model, "-o", tmp_path / "r", *words)
    assert outcome.exit_code == 0, outcome.err
    config = (tmp_path / "r" / "net" / "config.pbtxt").read_text(encoding="utf-8")
    for line in (
        "max_batch_size: 16",
        "preferred_batch_size: [ 4, 8 ]",
        "max_queue_delay_microseconds: 100",
        "kind: KIND_GPU",
        "count: 2",
        "gpus: [ 0, 1 ]",
        'name: "tensorrt"',
        'value: "FP16"',
        'label_filename: "labels.txt"',
        'string_value: "3"',
    ):
        assert line in config
    assert (tmp_path / "r" / "net" / "3" / "model.onnx").is_file()


def test_warm_up_can_be_left_away(jr: Jr, tmp_path: Path, model: Path) -> None:
    assert jr("package", "triton", model, "-o", tmp_path / "r", "--no-warmup").exit_code == 0
    assert "model_warmup" not in (tmp_path / "r" / "digits" / "config.pbtxt").read_text(encoding="utf-8")


def test_a_model_is_not_overwritten_without_force(jr: Jr, repository: Path, model: Path) -> None:
    outcome = jr("package", "triton", model, "-o", repository)
    assert outcome.exit_code == 2
    assert outcome.err.startswith(f"jr-onnx: {repository / 'digits' / '1'} already exists. Use --force")
    assert outcome.err.count("\n") == 1
    assert jr("package", "triton", model, "-o", repository, "--force").exit_code == 0


def test_a_hidden_kappa_is_noted(jr: Jr, tmp_path: Path, model: Path) -> None:
    random = tmp_path / "random.onnx"
    assert jr("rewrite", model, "--random", "0", "0.1", "-o", random).exit_code == 0
    refused = jr("package", "triton", random, "-o", tmp_path / "r")
    assert refused.exit_code == 4
    assert "nothing would draw it there" in refused.err
    accepted = jr("package", "triton", random, "-o", tmp_path / "r", "--allow-fixed-kappa")
    assert accepted.exit_code == 0
    assert accepted.err.startswith("note: kappa stays at the default of the input")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--gpus", "a"], "expected whole numbers separated by commas"),
        (["--warmup-shape", "3,8,8"], "expected a name and sizes"),
        (["--warmup-shape", "x=3,b"], "expected whole numbers separated by commas"),
        (["--op-library"], "--op-library needs --repository-path-on-server"),
        (["--provider", "tpu"], "'tpu' is not one of"),
        (["--name", "a/b"], "the model name is 'a/b'"),
        (["--labels", "nowhere.txt"], "cannot read the labels"),
    ],
)
def test_a_wrong_option_is_explained(jr: Jr, tmp_path: Path, model: Path, words: list[str], message: str) -> None:
    outcome = jr("package", "triton", model, "-o", tmp_path / "r", *words)
    assert outcome.exit_code == 2
    assert message in outcome.err
    assert not (tmp_path / "r").exists()


def test_a_missing_model_is_one_line(jr: Jr, tmp_path: Path) -> None:
    outcome = jr("package", "triton", tmp_path / "nowhere.onnx", "-o", tmp_path / "r")
    assert (outcome.exit_code, outcome.out) == (2, "")
    assert outcome.err == f"jr-onnx: {tmp_path / 'nowhere.onnx'} does not exist\n"


def test_kserve_files_are_listed(jr: Jr, tmp_path: Path, repository: Path) -> None:
    outcome = jr("package", "kserve", repository, "--storage-uri", "s3://bucket/models", "-o", tmp_path / "k")
    assert outcome.exit_code == 0
    assert outcome.out.splitlines() == [
        str(tmp_path / "k" / name) for name in ("servingruntime.yaml", "inferenceservice.yaml")
    ]
    assert "kubectl apply" in outcome.err


def test_compose_files_are_listed(jr: Jr, tmp_path: Path, repository: Path) -> None:
    outcome = jr("package", "compose", repository, "--replicas", 3, "-o", tmp_path / "c")
    assert outcome.exit_code == 0
    assert outcome.out.splitlines() == [str(tmp_path / "c" / name) for name in ("compose.yaml", "haproxy.cfg")]
    assert "docker compose -f" in outcome.err


def test_verification_lists_the_packages(jr: Jr, repository: Path) -> None:
    outcome = jr("verify-package", repository, "--expect", "digits/1")
    assert outcome.exit_code == 0
    label, kind, files, created, signature = outcome.out.rstrip("\n").split("\t")
    assert (label, kind, files, signature) == ("digits/1", "triton", "2 files", "unsigned")
    assert datetime.fromisoformat(created).tzinfo is not None


def test_verification_fails_with_its_own_exit_code(jr: Jr, repository: Path) -> None:
    assert jr("verify-package", repository, "--expect", "digits/2").exit_code == 7
    (repository / "digits" / "1" / "model.onnx").write_bytes(b"")
    outcome = jr("verify-package", repository)
    assert (outcome.exit_code, outcome.out) == (7, "")
    assert "digits/1/model.onnx was changed" in outcome.err
    assert outcome.err.count("\n") == 1


def test_a_signed_package_is_checked_with_the_public_key(jr: Jr, tmp_path: Path, model: Path) -> None:
    pytest.importorskip("model_signing", reason="model-signing is not installed")
    private, public = make_keys(tmp_path / "keys")
    assert jr("package", "triton", model, "-o", tmp_path / "r", "--sign", private).exit_code == 0
    assert jr("verify-package", tmp_path / "r").out.endswith("signed, not checked\n")
    assert jr("verify-package", tmp_path / "r", "--key", public).out.endswith("signature holds\n")
    _, other = make_keys(tmp_path / "others")
    assert jr("verify-package", tmp_path / "r", "--key", other).exit_code == 7


@pytest.mark.parametrize("name", ["triton", "kserve", "compose"])
def test_every_option_is_explained(name: str) -> None:
    command = importlib.import_module(f"jr_onnx.cli.package_{name}").command
    assert command.help
    options = [option for option in command.params if isinstance(option, click.Option)]
    assert len(options) > 3
    assert [option.name for option in options if not option.help] == []


def test_packaging_imports_no_torch(tmp_path: Path, model: Path) -> None:
    script = (
        "import sys\nfrom jr_onnx.cli.app import run\n"
        f"assert run(['package', 'triton', {str(model)!r}, '-o', {str(tmp_path / 'r')!r}]) == 0\n"
        f"assert run(['package', 'kserve', {str(tmp_path / 'r')!r}, '--storage-uri', 's3://b', '-o', "
        f"{str(tmp_path / 'k')!r}]) == 0\n"
        "print({'torch', 'kserve', 'tritonclient'} & set(sys.modules), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines()[-1] == "set()"


@pytest.mark.parametrize("deployment", [("compose",), ("kserve", "--storage-uri", "s3://bucket/models")])
def test_a_deployment_checks_signatures_before_anything_is_written(
    jr: Jr, tmp_path: Path, model: Path, deployment: tuple[str, ...]
) -> None:
    pytest.importorskip("model_signing", reason="model-signing is not installed")
    private, public = make_keys(tmp_path / "keys")
    kind, *words = deployment
    root, target = tmp_path / "r", tmp_path / "d"
    assert jr("package", "triton", model, "-o", root).exit_code == 0
    outcome = jr("package", kind, root, *words, "-o", target, "--key", public, "--sign", private)
    assert outcome.exit_code == 7
    assert "is not signed" in outcome.err
    assert not target.exists()
    assert jr("package", "triton", model, "-o", root, "--sign", private, "--force").exit_code == 0
    late = jr("package", kind, root, *words, "-o", target, "--key", public, "--not-before", "2999-01-01")
    assert late.exit_code == 7
    assert "expected not before 2999-01-01T00:00:00Z" in late.err
    assert not target.exists()
    good = jr("package", kind, root, *words, "-o", target, "--key", public, "--sign", private)
    assert good.exit_code == 0, good.err
    assert "not checked" not in good.err
    unchecked = jr("package", kind, root, *words, "-o", target, "--sign", private, "--force")
    assert "the signatures of its models were not checked" in unchecked.err


def test_a_date_without_a_key_and_one_that_is_none_are_refused(jr: Jr, repository: Path) -> None:
    outcome = jr("verify-package", repository, "--not-before", "2026-01-01")
    assert outcome.exit_code == 2
    assert "Give --key" in outcome.err
    outcome = jr("verify-package", repository, "--not-before", "yesterday")
    assert outcome.exit_code == 2
    assert "expected a date or a time" in outcome.err


def test_the_users_word_joins_what_is_not_proved(jr: Jr, tmp_path: Path) -> None:
    proto = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["" : 17]> net (float[N, 4] x) => (float[N, 4] y) {
            m = ReduceMean <axes = [0]> (x)
            y = Sub (x, m)
        }"""
    )
    model = save(proto, tmp_path / "mean.onnx")
    by_itself = jr("package", "triton", model, "-o", tmp_path / "a")
    assert "Triton does not join requests: the rows of a batch are not proved independent (node 'm'" in by_itself.err
    config = (tmp_path / "a" / "mean" / "config.pbtxt").read_text(encoding="utf-8")
    assert "max_batch_size: 32" in config
    assert "dynamic_batching" not in config
    insisted = jr("package", "triton", model, "-o", tmp_path / "b", "--max-batch", "8")
    assert "Triton joins requests: --max-batch was given, although not proved" in insisted.err
    assert "a trial says: output 'y' of a row depends on the other rows" in insisted.err
    assert "dynamic_batching" in (tmp_path / "b" / "mean" / "config.pbtxt").read_text(encoding="utf-8")
    manifest = (tmp_path / "b" / "mean" / "1" / "jr_onnx.manifest").read_text(encoding="utf-8")
    assert "--max-batch was given, although not proved" in manifest
