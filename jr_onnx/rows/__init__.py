"""Whether requests to a model may be joined: a proof that the rows of a batch are independent, and a trial of it."""

from jr_onnx.rows.follow import RANDOM_OPERATORS
from jr_onnx.rows.joining import Joining, decide
from jr_onnx.rows.proof import RowProof, prove_rows
from jr_onnx.rows.trial import TrialInput

__all__ = ["RANDOM_OPERATORS", "Joining", "RowProof", "TrialInput", "decide", "prove_rows"]
