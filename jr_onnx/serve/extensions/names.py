"""Names of the protocol's extensions that are answered in full; the server's metadata lists them."""

from __future__ import annotations

from typing import Final

EXTENSIONS: Final = (
    "binary_tensor_data",
    "classification",
    "model_configuration",
    "model_repository",
    "parameters",
    "statistics",
)
