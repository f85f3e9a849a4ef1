"""Old golden logs, and that of this version: they load, replay to the same read models, and verify.

What a version showed of its log stands beside it. Columns and read models that came later are not
compared; a golden log that is in a release is never made again.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from accounts.domain import Account
from audit.dumps.loading import fill_read_models, load
from eventstore.domain import TOPICS, AggregateSnapshot
from eventstore.log import EventLog
from eventstore.models import EventRecord
from eventstore.seals.verification import verify_seals
from projections.comparison import compare_with_fresh_replay
from projections.models import Balance
from tests.golden.making import FOLDER, PASSPHRASE
from tests.golden.showing import digest, only_columns_of, shown
from tests.isolation import forget_the_database, fresh_process

__all__ = ["fresh_process"]

LOGS = sorted(FOLDER.glob("*.dump"))


pytestmark = pytest.mark.usefixtures("fresh_process")


@pytest.fixture(params=LOGS, ids=lambda log: log.stem)
def golden(request: pytest.FixtureRequest) -> dict[str, Any]:
    """A golden log, loaded and replayed; what it showed in its own version."""
    log: Path = request.param
    with log.open("rb") as file:
        load(file, passphrase=PASSPHRASE, report=lambda done, total: None)
    forget_the_database()
    fill_read_models(lambda done, total: None)
    return dict(json.loads(log.with_suffix(".json").read_text()))


def test_a_golden_log_replays_to_the_read_models_of_its_version(golden: dict[str, Any]) -> None:
    found = only_columns_of(shown(), golden)
    assert found["read_models"] == golden["read_models"]
    assert digest(found) == digest(golden) == golden["digest"]
    assert found["texts"] == golden["texts"]
    # Not only by the follower: a rebuild from nothing comes to the same.
    assert compare_with_fresh_replay() == []


def test_a_golden_log_verifies_and_its_accounts_load(golden: dict[str, Any]) -> None:
    seals = verify_seals()
    assert (seals.differences, seals.events) == ([], EventRecord.objects.count())
    balances = Balance.objects.values_list("user_id", "amount")
    assert balances
    for user_id, amount in balances:
        assert EventLog().load(Account, user_id).tokens == amount


def test_every_kind_of_event_stands_in_a_golden_log() -> None:
    # Whoever adds a kind makes the golden log of the next version: python -m tests.golden.making.
    known = {topic for topic, kind in TOPICS.items() if not issubclass(kind, AggregateSnapshot)}
    lines = [json.loads(line) for log in LOGS for line in log.read_bytes().splitlines()]
    stored = {line["topic"] for line in lines if line.get("kind") == "event"}
    assert {topic for topic in known if topic.startswith("chatledger.")} == stored
