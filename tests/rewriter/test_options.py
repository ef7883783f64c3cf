"""What Python callers may ask of a rewrite; the command line checks its words by itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
import pytest

from jr_onnx.errors import InputError, KappaError
from jr_onnx.kappa import RandomKappa
from jr_onnx.rewriter import rewrite
from tests.verifier.nets import network, save


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"lowering": "wher"}, "lowering is 'wher', expected one of auto, where, thresholded, custom"),
        ({"target": "gpu"}, "target is 'gpu', expected one of portable, cpu, cuda"),
        ({"opset": "17"}, "opset is '17', expected a whole number"),
        ({"external_data": "link"}, "external_data is 'link', expected one of auto, copy, hardlink, reference"),
    ],
)
def test_a_word_that_means_nothing_is_refused_and_nothing_written(
    tmp_path: Path, options: dict[str, Any], said: str
) -> None:
    source = save(network(), tmp_path)
    with pytest.raises(InputError, match=said):
        rewrite(source, 0.5, **options)
    assert list(tmp_path.iterdir()) == [source]


@pytest.mark.parametrize("word", [{"per": "sites"}, {"source": "os"}])
def test_a_random_kappa_is_not_taken_for_another(word: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="of a random kappa is"):
        RandomKappa(0.1, 0.2, **word)


@pytest.mark.parametrize("kappa", [True, False, {"act0": True}])
def test_a_truth_is_no_kappa(kappa: Any) -> None:
    with pytest.raises(KappaError, match="expected a number >= 0"):
        rewrite(network(), kappa)


def test_one_filter_need_not_be_a_sequence() -> None:
    """As a sequence, a string would be patterns of one letter each, which match nearly every site."""
    ids = [site.id for site in rewrite(network(), 0.5)[1].sites]
    assert len(ids) == 2
    model, result = rewrite(network(), 0.5, include=ids[0])
    assert isinstance(model, onnx.ModelProto)
    assert ([site.id for site in result.sites], list(result.skipped)) == (ids[:1], ids[1:])
    assert [site.id for site in rewrite(network(), 0.5, exclude=ids[0])[1].sites] == ids[1:]
