from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from tools.training.train import main

DIGITS = ["digits_mlp", "--epochs", "2", "--limit", "150"]


def _run(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(main, arguments)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.output


def test_progress_and_result_are_shown(tmp_path: Path) -> None:
    code, output = _run(*DIGITS, "--output", str(tmp_path / "mlp.pt"))
    assert code == 0
    assert "epoch 1/2  loss" in output
    assert "left" in output
    assert "test accuracy" in output
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mlp.json", "mlp.pt"]


def test_a_stopped_run_is_resumed_by_the_same_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tools.training import train

    out = str(tmp_path / "mlp.pt")
    line = train._line

    def stop(*arguments: object) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr(train, "_line", stop)
    code, output = _run(*DIGITS, "--output", out)
    assert code == 1
    assert "stopped; the same command goes on" in output
    monkeypatch.setattr(train, "_line", line)
    code, output = _run(*DIGITS, "--output", out)
    assert code == 0
    assert "resuming after 1 epochs" in output
    assert "epoch 1/2" not in output


def test_restart_forgets_the_state(tmp_path: Path) -> None:
    (tmp_path / "mlp.state").write_bytes(b"damaged")
    out = str(tmp_path / "mlp.pt")
    code, output = _run(*DIGITS, "--output", out)
    assert code == 1
    assert "Start over with --restart" in output
    assert _run(*DIGITS, "--output", out, "--restart")[0] == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["lenet_like"], "lenet_like needs --data mnist:DIR"),
        (["lenet_like", "--data", "digits"], "found --data digits, expected mnist data"),
        (["lenet_like", "--data", "mnist:/nowhere"], "/nowhere is not a folder"),
        (["digits_mlp", "--device", "abacus"], "the device 'abacus' is not usable"),
        (["digits_mlp", "--robustly"], "No such option"),
        (["vgg"], "'vgg' is not one of"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, arguments: list[str], message: str) -> None:
    code, output = _run(*arguments, "--output", str(tmp_path / "weights.pt"))
    assert code != 0
    assert message in " ".join(output.split())
    assert not list(tmp_path.iterdir())
