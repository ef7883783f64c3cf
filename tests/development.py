"""Development data for tests: what is absent skips the test, with the path that was looked for."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools.development import VARIABLE, data_folder


class DataFolder:
    """The folder of development data; `folder / "mnist"` is a path below it, or a skip where there is none."""

    def __truediv__(self, relative: str) -> Path:
        path = data_folder() / relative
        if not path.exists():
            pytest.skip(f"no {relative} in the development data ({VARIABLE}, default ../shared/data)")
        return path
