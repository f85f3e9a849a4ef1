"""Sets of positions as ranges: a shift of a million events is one of them."""

from collections.abc import Iterable, Iterator

#: Both ends included.
Range = tuple[int, int]


class Ranges:
    """Positions, noted in ascending order."""

    def __init__(self, ranges: Iterable[Range] = ()) -> None:
        self._ranges: list[Range] = []
        for first, last in sorted(ranges):
            self.add(first, last)

    def add(self, first: int, last: int) -> None:
        """Add a range that begins behind, or within, the last one."""
        if last < first:
            return
        if self._ranges and first <= self._ranges[-1][1] + 1:
            before = self._ranges[-1]
            self._ranges[-1] = (before[0], max(before[1], last))
        else:
            self._ranges.append((first, last))

    def __iter__(self) -> Iterator[Range]:
        return iter(self._ranges)

    def __bool__(self) -> bool:
        return bool(self._ranges)

    def __contains__(self, position: int) -> bool:
        return any(first <= position <= last for first, last in self._ranges)

    def __sub__(self, other: "Ranges") -> "Ranges":
        left = Ranges()
        others = list(other)
        index = 0
        for first, last in self._ranges:
            while index < len(others) and others[index][1] < first:
                index += 1
            at = index
            while at < len(others) and others[at][0] <= last:
                left.add(first, min(last, others[at][0] - 1))
                first = max(first, others[at][1] + 1)  # noqa: PLW2901 (what is left of it)
                at += 1
            left.add(first, last)
        return left

    def __and__(self, other: "Ranges") -> "Ranges":
        return self - (self - other)

    def positions(self, limit: int) -> list[int]:
        """The first positions, at most `limit`."""
        found: list[int] = []
        for first, last in self._ranges:
            found.extend(range(first, min(last, first + limit - len(found) - 1) + 1))
            if len(found) >= limit:
                break
        return found
