"""Erasure, deactivation or deletion while a message is pending: one end, exact refunds (3, 4).

An erasure changes no amount and no byte of the log, and leaves no key of the user's text (12).
What races it in one process: tests/privacy/test_erasure.py.
"""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import psycopg
import pytest

from devstack.model_scripts import TALE, says
from devstack.model_server import ModelServer
from tests.faults.checker import check
from tests.faults.counts import count, seeded
from tests.stack.client import PASSWORD, User
from tests.stack.ledger_check import Ledger
from tests.stack.services import FullService

EACH = count(short=4, full=50)
MESSAGES = 3
AT_ONCE = 8
PIECE_SECONDS = 0.1
DELAY_SECONDS_MAX = PIECE_SECONDS * len(TALE)
WHOLE = "".join(TALE)


@dataclass
class Tried:
    """A user with pending messages, what was done about them, and when."""

    how: str
    user: User
    delay_seconds: float
    conversation_id: str = ""
    messages: list[str] = field(default_factory=list)
    done_at: float = 0.0


@pytest.fixture
def staff(told: FullService) -> User:
    """A member of staff, made in a shell."""
    name = f"boss-{time.monotonic_ns()}"
    boss = told.user(name)
    assert told.run("manage.py", "set_role", name, "staff").returncode == 0
    return boss


def test_what_is_pending_ends_as_it_must_whatever_becomes_of_its_user(
    told: FullService, model: ModelServer, staff: User
) -> None:
    dice = seeded("ended while pending")
    acts: dict[str, Callable[[Tried], int]] = {
        "erases": lambda t: t.user.delete("/users/me/", {"password": PASSWORD}).status_code,
        "is-erased": lambda t: staff.delete(f"/users/{t.user.id}/").status_code,
        "deletes": lambda t: t.user.delete(f"/conversations/{t.conversation_id}/").status_code,
        "is-deactivated": lambda t: staff.post(f"/users/{t.user.id}/deactivate/").status_code,
    }
    tried = [
        Tried(how, told.user(f"{how}-{number}"), dice.uniform(0, DELAY_SECONDS_MAX))
        for number in range(EACH)
        for how in acts
    ]
    with ThreadPoolExecutor(AT_ONCE) as clients:
        for trying in [clients.submit(try_one, t, acts[t.how], model) for t in tried]:
            trying.result()
    before = stored(told)
    ledger = check(told)
    for each in tried:
        for message_id in each.messages:
            CHECKS[each.how](ledger, each, message_id)
    ended = {ledger.end_of(m).kind for t in tried if t.how != "is-deactivated" for m in t.messages}
    assert "ResponseCancelled" in ended, "nothing was pending any more"
    erased = [t.user.id for t in tried if t.how in ("erases", "is-erased")]
    check_erased(told, erased)
    # What was in the log stands there unchanged, and its seals verify.
    assert stored(told)[: len(before)] == before
    verified = told.run("manage.py", "verify")
    assert verified.returncode == 0, verified.stdout + verified.stderr


def try_one(tried: Tried, act: Callable[[Tried], int], model: ModelServer) -> None:
    user = tried.user
    tried.conversation_id = user.post("/conversations/", {"title": "secret"}).json()["id"]
    path = f"/conversations/{tried.conversation_id}/messages/"
    for number in range(MESSAGES):
        text = f"{user.name}, secret {number}"
        model.scripts[text] = says(*TALE, every_seconds=PIECE_SECONDS)
        answer = user.post(path, {"message": text}, {"Prefer": "respond-async"})
        assert answer.status_code == 202, answer.text
        tried.messages.append(answer.json()["id"])
    time.sleep(tried.delay_seconds)
    assert act(tried) == 204
    tried.done_at = time.time()


def check_cancelled(ledger: Ledger, tried: Tried, message_id: str) -> None:
    """It ended at once: by what was done, unless by itself before."""
    end = ledger.end_of(message_id)
    assert end.kind in ("ResponseCancelled", "ResponseGenerated")
    assert end.at / 1e6 <= tried.done_at
    refunds = [100] if end.data["cost"] == 0 else []
    assert ledger.refunds_of(message_id) == refunds


def check_finished(ledger: Ledger, tried: Tried, message_id: str) -> None:
    """A deactivated user's message finishes and is charged."""
    end = ledger.end_of(message_id)
    assert (end.kind, end.data["cost"]) == ("ResponseGenerated", 100)
    assert tried.user.get("/token/").status_code == 401


CHECKS = {
    "erases": check_cancelled,
    "is-erased": check_cancelled,
    "deletes": check_cancelled,
    "is-deactivated": check_finished,
}


def check_erased(full: FullService, user_ids: list[str]) -> None:
    """No key is left that opens anything of theirs, nor a row that shows it."""
    with psycopg.connect(full.stack.postgres.url) as database:
        for user_id in user_ids:
            keys = database.execute(
                "SELECT wrapped FROM eventstore_datakey WHERE id = %s", [user_id]
            ).fetchall()
            assert keys == [(None,)]
            for table in ("projections_users", "projections_history", "accounts_credential"):
                found = database.execute(f"SELECT 1 FROM {table} WHERE user_id = %s", [user_id])
                assert found.fetchall() == [], table


def stored(full: FullService) -> list[tuple[Any, ...]]:
    """The log, byte for byte."""
    with psycopg.connect(full.stack.postgres.url) as database:
        return database.execute("SELECT * FROM eventstore_event ORDER BY position").fetchall()
