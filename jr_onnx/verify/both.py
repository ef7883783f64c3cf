"""The record that `jr-onnx verify --torch --json` prints."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from jr_onnx.records import JsonValue, Record
from jr_onnx.verify.report import VerifyReport

if TYPE_CHECKING:
    from jr_onnx.verify.torch_side import TorchReport  # imports torch


@dataclass(frozen=True, slots=True)
class WithTorch(Record):
    """Both results of one command.

    Attributes:
        verify: The comparison with the original.
        torch: The comparison with the torch network.
    """

    SCHEMA: ClassVar[str] = "jr_onnx.verify_with_torch/1"
    verify: VerifyReport
    torch: TorchReport

    def to_json(self) -> dict[str, JsonValue]:
        """Return both records, each with its own schema."""
        return {"schema": self.SCHEMA, "verify": self.verify.to_json(), "torch": self.torch.to_json()}
