"""The simulation in short: `make simulation` is the long form."""

from tests.simulation import rounds

#: Operations of the short form.
OPERATIONS = 2_000
ROUNDS_MAX = 10


def test_whatever_happens_every_guarantee_holds() -> None:
    seed, total = rounds.first_seed(), 0
    for number in range(ROUNDS_MAX):
        total += rounds.run(seed + number, worlds=8).operations
        if total >= OPERATIONS:
            return
    raise AssertionError(f"{ROUNDS_MAX} rounds came to {total} operations")


def test_a_seed_does_the_same_again() -> None:
    assert rounds.run(1, worlds=1).done == rounds.run(1, worlds=1).done
