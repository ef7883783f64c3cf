from __future__ import annotations

from pathlib import Path

import pytest

from tools.training.embed_digits import TARGET, write


def test_the_embedded_file_is_what_the_tool_writes(tmp_path: Path) -> None:
    pytest.importorskip("sklearn", reason="the digits are taken from scikit-learn")
    import numpy as np

    write(tmp_path / "digits.npz")
    with np.load(tmp_path / "digits.npz") as fresh, np.load(TARGET) as embedded:
        assert set(fresh.files) == set(embedded.files) == {"images", "labels"}
        for name in fresh.files:
            assert np.array_equal(fresh[name], embedded[name])
            assert fresh[name].dtype == embedded[name].dtype == np.uint8
    assert TARGET.stat().st_size < 100_000
