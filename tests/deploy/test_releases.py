"""Triton releases: what each opens, and what to do where it does not."""

from __future__ import annotations

import itertools

import pytest

from jr_onnx.deploy.releases import DEFAULT_RELEASE, RELEASES, check_model, find_release, image
from jr_onnx.errors import InputError, RefusalError


def test_the_table_is_sorted_and_only_ever_accepts_more() -> None:
    assert [entry.tag for entry in RELEASES] == sorted(entry.tag for entry in RELEASES)
    for older, newer in itertools.pairwise(RELEASES):
        assert older.ir_version <= newer.ir_version
        assert older.opset <= newer.opset
    assert RELEASES[-1].tag == DEFAULT_RELEASE


@pytest.mark.parametrize("entry", RELEASES, ids=lambda entry: entry.tag)
def test_each_release_takes_its_limits_and_nothing_beyond(entry: object) -> None:
    assert isinstance(entry, type(RELEASES[0]))
    check_model(entry.ir_version, entry.opset, entry.tag, "the model")
    with pytest.raises(RefusalError, match=f"has opset {entry.opset + 1}, but Triton {entry.tag}"):
        check_model(entry.ir_version, entry.opset + 1, entry.tag, "the model")
    with pytest.raises(RefusalError, match=f"has IR version {entry.ir_version + 1}"):
        check_model(entry.ir_version + 1, entry.opset, entry.tag, "the model")


def test_the_error_names_the_first_release_that_opens_the_model() -> None:
    with pytest.raises(RefusalError) as caught:
        check_model(10, 22, "24.10", "the model")
    assert caught.value.hint == (
        "Use --triton-release 25.12 or later, or convert the source model to opset 21 (jr-onnx rewrite --opset 21)"
    )


def test_where_no_release_opens_it_only_conversion_is_offered() -> None:
    with pytest.raises(RefusalError) as caught:
        check_model(99, 99, DEFAULT_RELEASE, "the model")
    assert "--triton-release" not in caught.value.hint
    assert caught.value.hint.startswith("Convert the source model to opset 26")
    assert "IR version 13" in caught.value.hint


def test_a_release_between_two_known_ones_is_judged_by_the_older() -> None:
    assert find_release("25.03").onnxruntime == "1.19.2"
    assert find_release("25.03").tag == "25.03"
    assert find_release("27.01").onnxruntime == RELEASES[-1].onnxruntime


@pytest.mark.parametrize("tag", ["", "26.8", "26.13", "latest", "26.08-py3", "26.08\n", "２６.08"])
def test_what_is_no_release_is_refused(tag: str) -> None:
    with pytest.raises(InputError, match="expected year and month"):
        find_release(tag)


def test_a_release_older_than_the_table_is_refused() -> None:
    with pytest.raises(InputError, match=r"expected 23\.05 or a later one"):
        find_release("22.12")


def test_the_image_is_that_of_the_release() -> None:
    assert image("26.08") == "nvcr.io/nvidia/tritonserver:26.08-py3"
