"""What becomes of the tokens: every way in which a message can end, at both prices.

Both profiles, real processes, a scripted upstream. After each row the balance, the API and the log
must say the same, and no invariant may be broken.
"""

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from devstack.model_scripts import (
    TALE,
    Script,
    breaks_off,
    hangs,
    refuses,
    says,
)
from devstack.model_server import ModelServer
from tests.stack.client import PASSWORD, User
from tests.stack.following import Follower
from tests.stack.services import EmbeddedService, FullService, make_service, wait_for

GRANT = 4000
FLAT_PRICE = 100
#: Tokens of balance for 1,000 tokens of the model; uneven, so that it matters how one rounds.
PROMPT_PRICE_PER_1000 = 2_500
COMPLETION_PRICE_PER_1000 = 7_100
CONTEXT_TOKENS_MAX = 256
RESPONSE_TOKENS_MAX = 100
DEADLINE_SECONDS = 90
SHORT_DEADLINE_SECONDS = 3
ENV = {
    "RESPONDER": "openai",
    "OPENAI_MODEL": "scripted",
    "MESSAGE_PRICE": str(FLAT_PRICE),
    "PROMPT_PRICE_PER_1000": str(PROMPT_PRICE_PER_1000),
    "COMPLETION_PRICE_PER_1000": str(COMPLETION_PRICE_PER_1000),
    "CONTEXT_TOKENS_MAX": str(CONTEXT_TOKENS_MAX),
    "RESPONSE_TOKENS_MAX": str(RESPONSE_TOKENS_MAX),
    "RESPONSE_DEADLINE_SECONDS": str(DEADLINE_SECONDS),
}
WHOLE = "".join(TALE)
SPOKEN = 3
FIRST = "".join(TALE[:SPOKEN])
#: Longer than a worker's death may delay an end.
END_SECONDS = 40.0


class Tried:
    """A running service at one price, its upstream, and the deadline of what is sent to it."""

    def __init__(
        self, service: EmbeddedService | FullService, model: ModelServer, *, pricing: str
    ) -> None:
        self.service = service
        self.model = model
        self.pricing = pricing
        self.deadline_seconds = DEADLINE_SECONDS

    @property
    def name(self) -> str:
        return f"{self.service.profile}-{self.pricing}"

    def send_within(self, deadline_seconds: int) -> None:
        """Give what is sent from now on this deadline."""
        if deadline_seconds != self.deadline_seconds:
            self.service.restart_web(RESPONSE_DEADLINE_SECONDS=str(deadline_seconds))
            self.deadline_seconds = deadline_seconds

    def asked(self, text: str) -> int:
        """How often the upstream was asked for a response to this message."""
        return sum(each.text == text for each in self.model.requests)


@dataclass
class Case:
    """A message on its way."""

    tried: Tried
    user: User
    conversation_id: str
    text: str
    follower: Follower

    @property
    def path(self) -> str:
        return f"/messages/{self.follower.message_id}/"


def nothing(_: Case) -> None:
    """The message takes its course."""


def hang_up(case: Case) -> None:
    assert case.user.message(case.follower.message_id)["status"] == "pending"
    case.follower.hang_up()


def cancel(case: Case) -> None:
    answer = case.user.post(f"{case.path}cancel/")
    assert (answer.status_code, answer.json()["status"]) == (200, "cancelled"), answer.text
    assert answer.json() == case.user.message(case.follower.message_id)


def kill(case: Case) -> None:
    case.tried.service.kill_worker()


def delete_the_conversation(case: Case) -> None:
    answer = case.user.delete(f"/conversations/{case.conversation_id}/")
    assert answer.status_code == 204, answer.text


def erase_the_user(case: Case) -> None:
    answer = case.user.delete("/users/me/", {"password": PASSWORD})
    assert answer.status_code == 204, answer.text


@dataclass(frozen=True, kw_only=True)
class Row:
    """What the upstream does, what happens after `heard` was heard, and what comes of it."""

    scripts: list[Script]
    heard: str = ""
    happens: Callable[[Case], None] = nothing
    status: str = "done"
    response: str | None = WHOLE
    #: What the upstream says it took; by usage, None is an estimate.
    usage: tuple[int, int] | None = None
    reason: str | None = None
    asked: int = 1
    deadline_seconds: int = DEADLINE_SECONDS
    deleted: bool = False
    erased: bool = False
    restarts: int = 0
    #: Whether the client reads on to the end.
    resumes: bool = True

    def cost(self, pricing: str, text: str) -> int:
        if self.status == "failed" or not self.response:
            return 0
        if pricing == "message":
            return FLAT_PRICE
        return min(by_usage(*self.used(text)), price_of("usage"))

    def used(self, text: str) -> tuple[int, int]:
        return self.usage or (estimated(text), estimated(self.response or ""))


def by_usage(prompt_tokens: int, completion_tokens: int) -> int:
    thousandths = (
        prompt_tokens * PROMPT_PRICE_PER_1000 + completion_tokens * COMPLETION_PRICE_PER_1000
    )
    return (thousandths + 999) // 1000


def price_of(pricing: str) -> int:
    """What is debited when the message is sent."""
    if pricing == "message":
        return FLAT_PRICE
    return by_usage(CONTEXT_TOKENS_MAX, RESPONSE_TOKENS_MAX)


def estimated(text: str) -> int:
    return (len(text.encode()) + 3) // 4


ROWS = {
    "answered, usage told": Row(scripts=[says(*TALE, usage=(23, 17))], usage=(23, 17)),
    "answered, usage not told": Row(scripts=[says(*TALE)]),
    "answered, usage beyond the worst case": Row(
        scripts=[says(*TALE, usage=(9_000, 9_000))], usage=(9_000, 9_000)
    ),
    "the client hangs up": Row(
        scripts=[says(*TALE, every_seconds=0.1)], heard=TALE[0], happens=hang_up, resumes=False
    ),
    "cancelled before the first text": Row(
        scripts=[hangs(after="after_headers")],
        happens=cancel,
        status="cancelled",
        response=None,
    ),
    "cancelled after the first text": Row(
        scripts=[hangs(after=SPOKEN)],
        heard=FIRST,
        happens=cancel,
        status="cancelled",
        response=FIRST,
    ),
    "the model fails again and again before the first text": Row(
        scripts=[refuses(500)], status="failed", response=None, reason="responder", asked=4
    ),
    "the model refuses": Row(
        scripts=[refuses(400)], status="failed", response=None, reason="responder"
    ),
    "the model breaks off after the first text": Row(
        scripts=[breaks_off(after=SPOKEN)],
        status="failed",
        response=None,
        reason="responder",
    ),
    "the worker is killed after the first text": Row(
        scripts=[hangs(after=SPOKEN, deltas=[each.upper() for each in TALE]), says(*TALE)],
        heard=FIRST.upper(),
        happens=kill,
        asked=2,
        restarts=1,
    ),
    "the conversation is deleted before the first text": Row(
        scripts=[hangs(after="after_headers")],
        happens=delete_the_conversation,
        status="cancelled",
        response=None,
        deleted=True,
    ),
    "the conversation is deleted after the first text": Row(
        scripts=[hangs(after=SPOKEN)],
        heard=FIRST,
        happens=delete_the_conversation,
        status="cancelled",
        response=FIRST,
        deleted=True,
    ),
    "the user is erased before the first text": Row(
        scripts=[hangs(after="after_headers")],
        happens=erase_the_user,
        status="cancelled",
        response=None,
        deleted=True,
        erased=True,
    ),
    "the user is erased after the first text": Row(
        scripts=[hangs(after=SPOKEN)],
        heard=FIRST,
        happens=erase_the_user,
        status="cancelled",
        response=FIRST,
        deleted=True,
        erased=True,
    ),
    "the deadline passes before the first text": Row(
        scripts=[hangs(after="before_headers")],
        status="failed",
        response=None,
        reason="deadline",
        deadline_seconds=SHORT_DEADLINE_SECONDS,
    ),
    "the deadline passes after the first text": Row(
        scripts=[hangs(after=SPOKEN)],
        heard=FIRST,
        status="failed",
        response=None,
        reason="deadline",
        deadline_seconds=SHORT_DEADLINE_SECONDS,
    ),
}


@pytest.fixture(scope="module")
def model() -> Iterator[ModelServer]:
    with ModelServer() as server:
        yield server


@pytest.fixture(
    scope="module",
    params=[
        (profile, pricing) for profile in ("embedded", "full") for pricing in ("message", "usage")
    ],
    ids="-".join,
)
def tried(request: pytest.FixtureRequest, model: ModelServer) -> Iterator[Tried]:
    """Each profile at each price, with its processes for all rows."""
    profile, pricing = request.param
    env = {**ENV, "PRICING": pricing, "OPENAI_BASE_URL": model.url}
    with (
        tempfile.TemporaryDirectory(prefix="chatledger-") as folder,
        make_service(profile, Path(folder), env) as service,
    ):
        yield Tried(service, model, pricing=pricing)


@pytest.mark.parametrize("name", ROWS)
def test_what_a_message_costs(tried: Tried, name: str) -> None:
    row = ROWS[name]
    tried.send_within(row.deadline_seconds)
    case = send(tried, name, row)
    case.follower.read(until=lambda: case.follower.text.startswith(row.heard))
    wait_for(lambda: tried.asked(case.text), END_SECONDS, "the upstream to be asked")
    row.happens(case)
    if row.resumes:
        case.follower.follow()
        check_stream(case, row)
    wait_for(lambda: not tried.service.ledger().pending, END_SECONDS, "the end")
    check_log(case, row)
    check_api(case, row)
    assert tried.asked(case.text) == row.asked


def test_the_read_models_equal_a_fresh_replay_after_all_this(tried: Tried) -> None:
    tried.service.at_rest()


def send(tried: Tried, name: str, row: Row) -> Case:
    """Send a message that the upstream treats as the row says, as a user of its own."""
    user = tried.service.user(f"row-{list(ROWS).index(name)}")
    text = f"{name} ({tried.name})"
    tried.model.scripts[text] = row.scripts
    started = user.post("/conversations/", {})
    assert started.status_code == 201, started.text
    conversation_id = started.json()["id"]
    follower = Follower(user)
    follower.send(text, f"/conversations/{conversation_id}/messages/")
    return Case(tried, user, conversation_id, text, follower)


def check_stream(case: Case, row: Row) -> None:
    """Whoever follows the message is told its one end."""
    end = case.follower.end
    assert end is not None
    cost, price = row.cost(case.tried.pricing, case.text), price_of(case.tried.pricing)
    said: dict[str, Any] = {"id": case.follower.message_id}
    if row.status == "failed":
        said |= {"reason": row.reason, "refunded": price}
    else:
        # The text of a deleted conversation is gone, also for whoever still follows it.
        said |= {"response": None if row.deleted else row.response, "cost": cost}
    assert (end.name, end.data) == (row.status, said)
    assert case.follower.restarts == row.restarts
    if row.status == "done":
        assert case.follower.text == row.response


def check_log(case: Case, row: Row) -> None:
    """The message has one debit, one end, and the refund that belongs to it."""
    ledger = case.tried.service.ledger()
    assert ledger.violations() == []
    message_id = case.follower.message_id
    assert ledger.messages_of(case.user.id) == [message_id]
    cost, price = row.cost(case.tried.pricing, case.text), price_of(case.tried.pricing)
    end = ledger.end_of(message_id)
    kinds = {
        "done": "ResponseGenerated",
        "failed": "ResponseFailed",
        "cancelled": "ResponseCancelled",
    }
    assert (end.kind, end.data["cost"]) == (kinds[row.status], cost)
    assert end.data.get("reason") == row.reason
    if end.kind != "ResponseFailed":
        assert (end.data["response"] is None) == (row.response is None)
        assert end.data["usage"] == expected_usage(case, row)
    assert ledger.refunds_of(message_id) == ([price - cost] if price > cost else [])
    assert ledger.balance_of(case.user.id) == GRANT - cost


def expected_usage(case: Case, row: Row) -> dict[str, Any] | None:
    if case.tried.pricing == "message" or row.response is None:
        return None
    prompt_tokens, completion_tokens = row.used(case.text)
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "estimated": row.usage is None,
    }


def check_api(case: Case, row: Row) -> None:
    """The balance and the message are shown as the log has them."""
    if row.erased:
        assert case.user.get("/token/").status_code == 401
        return
    cost = row.cost(case.tried.pricing, case.text)
    wait_for(lambda: case.user.tokens() == GRANT - cost, 5, f"a balance of {GRANT - cost}")
    if row.deleted:
        paths = [case.path, f"{case.path}stream/", f"/conversations/{case.conversation_id}/"]
        assert [case.user.get(path).status_code for path in paths] == [404, 404, 404]
        return
    message = case.user.message(case.follower.message_id)
    assert message["message"] == case.text
    assert (message["status"], message["cost"], message["response"]) == (
        row.status,
        cost,
        row.response,
    )
    assert message["conversation_id"] == case.conversation_id
