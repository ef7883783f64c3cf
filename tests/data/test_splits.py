from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jr_onnx.data import splits
from jr_onnx.errors import DataError


def test_the_fractions_are_those_of_splitmix64() -> None:
    # The first outputs of the published generator with seed 0 are the mixed multiples of its increment.
    increment = 0x9E3779B97F4A7C15
    keys = np.array([(increment * number) % 2**64 for number in range(3)], dtype=np.uint64)
    published = (0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F)
    assert splits.fractions(keys).tolist() == [(value >> 11) / 2**53 for value in published]


@given(st.integers(0, 2000), st.integers(0, 500))
def test_a_longer_set_keeps_the_fractions_of_a_shorter_one(count: int, more: int) -> None:
    assert np.array_equal(splits.index_fractions(count), splits.index_fractions(count + more)[:count])


def test_the_fractions_spread_evenly() -> None:
    values = splits.index_fractions(100_000)
    # Standard deviation of a count of 10,000 among 100,000 is 95; five of them.
    assert np.all(np.abs(np.histogram(values, bins=10, range=(0, 1))[0] - 10_000) < 475)


def test_names_decide_the_split_whatever_their_order() -> None:
    names = [f"cat/{number}.png" for number in range(50)]
    forward = dict(zip(names, splits.name_fractions(names), strict=True))
    backward = dict(zip(names[::-1], splits.name_fractions(names[::-1]), strict=True))
    assert forward == backward


@pytest.mark.parametrize(
    "parts",
    [{"one"}, {"train", "test"}, {"test"}, {"train"}, {"train", "validation", "test"}, {"validation", "test"}],
)
def test_the_splits_of_a_set_never_overlap(parts: set[splits.Part]) -> None:
    seen: set[tuple[str, int]] = set()
    for split in splits.SPLITS:
        try:
            part = splits.part_of(split, parts, "set")
            chosen = splits.positions(split, part, parts, splits.index_fractions(1000), "set")
        except DataError:
            continue
        items = {(part, int(position)) for position in chosen}
        assert items
        assert not items & seen
        seen |= items
    assert len(seen) == 1000 * len(parts), "every item is in one split"


@pytest.mark.parametrize("parts", [{"one"}, {"test"}])
def test_a_set_of_one_part_has_no_train_split(parts: set[splits.Part]) -> None:
    with pytest.raises(DataError, match=r"no train part|has one part only"):
        splits.positions("train", splits.part_of("train", parts, "faces"), parts, splits.index_fractions(10), "faces")


def test_a_set_without_test_part_says_so() -> None:
    with pytest.raises(DataError, match="faces has the parts train, no test part"):
        splits.part_of("test", {"train"}, "faces")


def test_another_word_is_refused() -> None:
    with pytest.raises(DataError, match="found the split 'dev', expected one of train, validation, test"):
        splits.check_split("dev")
