"""What happened to sealed events: changed, removed, inserted, swapped or moved.

A leaf covers the position, and the leaves of all places are kept. So a row that is found in one
place is encoded as if it stood in another and compared with the leaf of that: where it fits, the
row came from there. What is tried is bounded, so that a log that is wrong all over takes no longer
to check than several times a right one.
"""

from bisect import bisect_right
from collections import deque
from collections.abc import Iterator, Sequence

from eventstore.seals.chain import Keys, covering
from eventstore.seals.checkpoints import split
from eventstore.seals.ranges import Ranges
from eventstore.seals.rows import HIGHEST, POSITION, Row, hash_at, malformed_column

#: Rows that fit nowhere of which the contents are kept, to try them in places found later.
KEPT_ROWS_MAX = 200
#: Places that each of these is tried in.
PLACES_MAX = 200
#: How far around its place a row is looked for, and how often.
NEAR_POSITIONS = 1_000
NEAR_SEARCHES_MAX = 20
#: Checkpoints whose leaves are kept meanwhile, and positions known to have none.
LEAVES_KEPT_MAX = 8
NOWHERE_MAX = 100_000
#: Differences of one kind that are named at most.
NAMED_MAX = 1_000


class SealedLeaves:
    """The leaf of any sealed position, for finding out where an event comes from."""

    def __init__(self, keys: Keys) -> None:
        self._keys = keys
        self._kept: deque[tuple[int, Sequence[bytes]]] = deque(maxlen=LEAVES_KEPT_MAX)
        self._nowhere: set[int] = set()

    def keep(self, first: int, hashes: Sequence[bytes]) -> None:
        """Remember the leaves from a position on."""
        self._kept.appendleft((first, hashes))

    def __call__(self, position: int) -> bytes | None:
        for first, hashes in self._kept:
            if first <= position < first + len(hashes):
                return hashes[position - first]
        if not 1 <= position <= HIGHEST or position in self._nowhere:
            return None
        stored = covering(position, self._keys)
        if stored is None:
            if len(self._nowhere) < NOWHERE_MAX:
                self._nowhere.add(position)
            return None
        self.keep(stored.checkpoint.first, split(stored.checkpoint.leaves))
        return self(position)


class Tracing:
    """Gathers the places where the log is not as it was sealed, and says what happened there."""

    def __init__(self, leaves: SealedLeaves) -> None:
        self._leaves = leaves
        self._seals: list[tuple[int, int]] = []
        self._wrong = Ranges()
        self._absent = Ranges()
        self._unknown = Ranges()
        self._kept: list[Row] = []
        # [first, last, shift]: the events of these places stand `shift` places lower.
        self._runs: list[list[int]] = []
        self._strays: list[Row] = []
        self._searches = 0

    def __bool__(self) -> bool:
        return bool(self._wrong) or bool(self._strays)

    def seals(self, number: int, first: int, hashes: Sequence[bytes]) -> None:
        """Note which checkpoint seals the events from `first` on, and by which leaves."""
        self._seals.append((first, number))
        self._leaves.keep(first, hashes)

    def absent(self, first: int, last: int) -> None:
        """Note places in which there is no row."""
        self._wrong.add(first, last)
        self._absent.add(first, last)

    def wrong(self, row: Row) -> None:
        """Note a row that is not the one that was sealed in its place."""
        position = row[POSITION]
        self._wrong.add(position, position)
        origin = self._origin(row)
        if origin is not None:
            self._found(origin, position)
            return
        self._unknown.add(position, position)
        if len(self._kept) < KEPT_ROWS_MAX:
            self._kept.append(row)

    def stray(self, row: Row) -> None:
        """Note a row in a place where no seal is, which may have come from one where one is."""
        self._strays.append(row)

    def strays(self) -> list[Row]:
        """The strays so far."""
        return list(self._strays)

    def resolve(self) -> set[int]:
        """Match the rows that fitted nowhere with the places whose events were found nowhere.

        Returns where the strays stand that were sealed in another place.
        """
        # Each leaf is looked up once: the places may lie in more checkpoints than are kept.
        homeless = [
            (place, self._leaves(place)) for place in self._homeless().positions(PLACES_MAX)
        ]
        for row in self._kept:
            for place, leaf in homeless:
                if _fits(row, place, leaf):
                    self._found(place, row[POSITION])
                    self._unknown -= Ranges([(row[POSITION], row[POSITION])])
                    break
        sealed: set[int] = set()
        for row in self._strays:
            shifted = [row[POSITION] + run[2] for run in self._runs[-1:]]
            for place, leaf in [*((place, self._leaves(place)) for place in shifted), *homeless]:
                if _fits(row, place, leaf):
                    self._found(place, row[POSITION])
                    sealed.add(row[POSITION])
                    break
        return sealed

    def differences(self) -> Iterator[str]:
        """One line for each thing that happened, and at least one if there is a wrong place."""
        lines = 0
        for line in self._named_differences():
            lines += 1
            yield line
        if not lines:
            for first, last in list(self._wrong)[:NAMED_MAX]:
                yield f"{self._named(first, last)}: not what was sealed"

    def _named_differences(self) -> Iterator[str]:
        homeless = self._homeless()
        taken = Ranges((first - shift, last - shift) for first, last, shift in self._runs)
        removed = homeless & Ranges([*self._absent, *taken])
        yield from self._each(homeless - removed, "changed")
        for first, last in removed:
            yield f"{self._named(first, last)}: removed"
        yield from self._each(self._unknown - homeless - self._lowered(), "inserted")
        yield from self._moves()

    def _origin(self, row: Row) -> int | None:
        """Where a row was sealed, if that is near or as far as for the one before."""
        position = row[POSITION]
        shifts = [1, -1] if not self._runs else [self._runs[-1][2], 1, -1]
        for shift in shifts:
            if self._fits(row, position + shift):
                return position + shift
        if self._searches < NEAR_SEARCHES_MAX:
            self._searches += 1
            for shift in range(2, NEAR_POSITIONS + 1):
                for place in (position + shift, position - shift):
                    if self._fits(row, place):
                        return place
        return None

    def _fits(self, row: Row, place: int) -> bool:
        return _fits(row, place, self._leaves(place))

    def _found(self, origin: int, position: int) -> None:
        shift = origin - position
        if self._runs and self._runs[-1][1:] == [origin - 1, shift]:
            self._runs[-1][1] = origin
        else:
            self._runs.append([origin, origin, shift])

    def _homeless(self) -> Ranges:
        """Places whose events were found nowhere."""
        return self._wrong - Ranges((first, last) for first, last, _ in self._runs)

    def _lowered(self) -> Ranges:
        """Places at the end that were left to events without a seal, as all before moved down."""
        end = max((last for _, last in self._wrong), default=0)
        return Ranges(
            (last - shift + 1, last) for _, last, shift in self._runs if shift > 0 and last == end
        )

    def _moves(self) -> Iterator[str]:
        singles = {first: first - shift for first, last, shift in self._runs if first == last}
        for number, (first, last, shift) in enumerate(sorted(map(tuple, self._runs))):
            if number >= NAMED_MAX:
                yield f"and {len(self._runs) - number:,} more that were moved"
                return
            to = first - shift
            named = self._named(first, last)
            if first != last:
                way = "down" if shift > 0 else "up"
                places = "place" if abs(shift) == 1 else "places"
                yield (
                    f"{named}: moved {way} by {abs(shift)} {places},"
                    f" to {first - shift} to {last - shift}"
                )
            elif singles.get(to) != first:
                yield f"{named}: moved to {to}"
            elif first < to:
                yield f"{named}: swapped with event {to} of checkpoint {self._seal_of(to)}"

    def _each(self, ranges: Ranges, what: str) -> Iterator[str]:
        reasons = {row[POSITION]: malformed_column(row) for row in self._kept}
        total = sum(last - first + 1 for first, last in ranges)
        for position in ranges.positions(NAMED_MAX):
            column = reasons.get(position)
            why = f"; its {column} is not in the form that is stored" if column else ""
            yield f"{self._named(position, position)}: {what}{why}"
        if total > NAMED_MAX:
            yield f"and {total - NAMED_MAX:,} more that were {what}"

    def _named(self, first: int, last: int) -> str:
        from_seal, to_seal = self._seal_of(first), self._seal_of(last)
        seals = (
            f"checkpoint {from_seal}"
            if from_seal == to_seal
            else f"checkpoints {from_seal} to {to_seal}"
        )
        events = f"event {first}" if first == last else f"events {first} to {last}"
        return f"{seals}, {events}"

    def _seal_of(self, position: int) -> int:
        index = bisect_right(self._seals, (position, 2**63)) - 1
        return self._seals[max(index, 0)][1] if self._seals else 0


def _fits(row: Row, place: int, leaf: bytes | None) -> bool:
    """Whether a row that is wrong where it stands is the one that was sealed in another place.

    Its own place is no answer: whoever says that it fits there after all has made the leaf for it.
    """
    return leaf is not None and place != row[POSITION] and hash_at(row, place) == leaf
