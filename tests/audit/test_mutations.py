"""Random single mutations of a sealed log: every one is found, and named for what it was.

`CHATLEDGER_MUTATIONS` says how many, `CHATLEDGER_MUTATION_SEED` which ones.
"""

import io
import json
import os
import random
import sys
from collections import Counter
from pathlib import Path

import pytest
from django.core.management import call_command
from django.db import IntegrityError, connection, transaction

from eventstore.reading import max_position
from eventstore.seals.checkpoints import Checkpoint, checkpoints_before
from tests.audit.mutations import MUTATIONS, Mutation, NotPossible, Sealed
from tests.eventstore.sealing import fill, seal

pytestmark = pytest.mark.django_db(transaction=True)

EVENTS = 10_000
MUTATIONS_DEFAULT = 60
SEED_DEFAULT = 4
DRAWS_MAX = 1_000
#: Rolled back updates leave dead rows in PostgreSQL, of which some mutations make thousands.
VACUUM_EVERY = 20


def verified(head: Path) -> tuple[int, list[str]]:
    """The exit status of `verify --seals` and the lines of its differences."""
    out = io.StringIO()
    status = 0
    try:
        call_command("verify", "--seals", "--head", str(head), stdout=out)
    except SystemExit as ended:
        status = int(str(ended.code))
    lines = out.getvalue().splitlines()
    return status, lines[:-3]


@pytest.fixture
def log() -> Sealed:
    """Ten thousand events in checkpoints of many sizes."""
    sizes = random.Random(7)
    left = EVENTS
    while left:
        size = min(left, sizes.choice([1, 2, 3, 7, 64, 500, 999, 1_000, 2_345]))
        fill(size, seed=left)
        seal()
        left -= size
    checkpoints = checkpoints_before(None, EVENTS)[::-1]
    assert (max_position(), checkpoints[-1].last) == (EVENTS, EVENTS)
    return Sealed(EVENTS, checkpoints)


@pytest.fixture
def head(log: Sealed, tmp_path: Path) -> Path:
    """The newest checkpoint, kept elsewhere."""
    file = tmp_path / "head.json"
    newest: Checkpoint = log.checkpoints[-1]
    file.write_text(json.dumps(newest.as_json()))
    return file


def test_every_mutation_is_found_and_named_for_what_it_was(
    log: Sealed, head: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    count = int(os.environ.get("CHATLEDGER_MUTATIONS", MUTATIONS_DEFAULT))
    seed = int(os.environ.get("CHATLEDGER_MUTATION_SEED", SEED_DEFAULT))
    with capsys.disabled():
        sys.stdout.write(f"\n{count} mutations, CHATLEDGER_MUTATION_SEED={seed}\n")
    assert verified(head) == (0, [])
    rng = random.Random(seed)
    made: Counter[str] = Counter()
    wrong = []
    for number in range(count):
        mutation, expected, found = mutated(log, head, rng)
        made[mutation.__name__] += 1
        named = [line.partition("; its ")[0] for line in found[1] if not line.startswith("stream ")]
        if found[0] != 1 or sorted(named) != sorted(expected):
            wrong.append(f"{number} {mutation.__name__}: {expected} but {found}")
        if number % VACUUM_EVERY == 0 and connection.vendor == "postgresql":
            with connection.cursor() as cursor:
                cursor.execute("VACUUM eventstore_event")
    with capsys.disabled():
        sys.stdout.write(", ".join(f"{times} {name}" for name, times in made.most_common()))
    assert wrong == [], "\n".join([f"seed {seed}", *wrong])
    assert verified(head) == (0, [])


def mutated(
    log: Sealed, head: Path, rng: random.Random
) -> tuple[Mutation, list[str], tuple[int, list[str]]]:
    """Make one mutation, verify, and take it back."""
    for _ in range(DRAWS_MAX):
        mutation = rng.choice(MUTATIONS)
        try:
            with transaction.atomic():
                expected = mutation(rng, log)
                found = verified(head)
                transaction.set_rollback(True)
        except (NotPossible, IntegrityError):
            continue
        return mutation, expected, found
    raise AssertionError("no mutation can be made")
