"""Ranges of positions, against sets of them."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from eventstore.seals.ranges import Ranges

SOME = st.sets(st.integers(0, 30))


def ranges(positions: set[int]) -> Ranges:
    return Ranges((position, position) for position in positions)


def positions(found: Ranges) -> set[int]:
    return {position for first, last in found for position in range(first, last + 1)}


@given(SOME, SOME)
def test_they_are_sets_of_positions(some: set[int], others: set[int]) -> None:
    left, right = ranges(some), ranges(others)
    assert positions(left) == some
    assert positions(left - right) == some - others
    assert positions(left & right) == some & others
    assert bool(left) is bool(some)
    assert all((position in left) is (position in some) for position in range(31))


@given(SOME)
def test_neighbours_share_a_range(some: set[int]) -> None:
    pairs = list(ranges(some))
    assert all(before[1] + 1 < after[0] for before, after in pairwise(pairs))


@given(SOME, st.integers(0, 31))
def test_the_first_positions_are_the_lowest(some: set[int], limit: int) -> None:
    assert ranges(some).positions(limit) == sorted(some)[:limit]
