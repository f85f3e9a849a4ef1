"""The checker itself: it finds nothing in a good log, and each thing that is wrong in a bad one."""

import dataclasses
import json
from typing import Any
from uuid import UUID

import pytest

from tests.stack.ledger_check import Ledger

ALICE, MESSAGE = UUID(int=1), UUID(int=2)
PRICES = {
    "prompt_per_1000": 10,
    "completion_per_1000": 31,
    "prompt_tokens_max": 8000,
    "completion_tokens_max": 1024,
}
USAGE = {"prompt_tokens": 1000, "completion_tokens": 500, "estimated": False}
MORE_THAN_ALL = {**USAGE, "prompt_tokens": 10**6}


def log(kind: str, cost: int, refund: int | None, *, price: int = 112, **end: Any) -> Ledger:
    """A message priced by usage (or flat, with `usage` None) that ended so."""
    prices = PRICES if "usage" in end and price != 100 else None
    sent = {
        "user_id": str(ALICE),
        "price": price,
        "usage_prices": prices,
        "deadline_seconds": 90,
    }
    events: list[tuple[UUID, int, str, dict[str, Any]]] = [
        (ALICE, 1, "TokensGranted", {"amount": 4000}),
        (ALICE, 2, "TokensDebited", {"amount": price, "message_id": str(MESSAGE)}),
        (MESSAGE, 1, "MessageSent", sent),
    ]
    if refund is not None:
        back = {"amount": refund, "message_id": str(MESSAGE)}
        events.append((ALICE, 3, "TokensRefunded", back))
    events.append((MESSAGE, 2, kind, {"cost": cost, **end}))
    return Ledger(
        [
            (position, stream, version, f"chatledger.{name}", json.dumps(data).encode(), at, "")
            for position, (stream, version, name, data) in enumerate(events, 1)
            for at in [1 if position < 4 else 2]
        ]
    )


@pytest.mark.parametrize(
    "good",
    [
        log("ResponseGenerated", 100, None, price=100, response="x"),
        log("ResponseGenerated", 26, 86, response="x", usage=USAGE),
        log("ResponseGenerated", 112, None, response="x", usage=MORE_THAN_ALL),
        log("ResponseCancelled", 26, 86, response="x", usage=USAGE),
        log("ResponseCancelled", 0, 112, response=None, usage=None),
        log("ResponseCancelled", 100, None, price=100, response="x", usage=None),
        log("ResponseFailed", 0, 112, usage=None),
    ],
)
def test_a_good_end_breaks_nothing(good: Ledger) -> None:
    assert good.violations() == []


@pytest.mark.parametrize(
    "bad",
    [
        log("ResponseGenerated", 100, 100, price=100, response="x"),
        log("ResponseGenerated", 0, 100, price=100, response="x"),
        log("ResponseGenerated", 25, 87, response="x", usage=USAGE),
        log("ResponseGenerated", 26, 85, response="x", usage=USAGE),
        log("ResponseGenerated", 26, None, response="x", usage=USAGE),
        log("ResponseGenerated", 112, 0, response="x", usage=MORE_THAN_ALL),
        log("ResponseGenerated", 26, 87, price=113, response="x", usage=USAGE),
        log("ResponseCancelled", 112, None, response=None, usage=None),
        log("ResponseCancelled", 0, 100, price=100, response="x", usage=None),
        log("ResponseFailed", 26, 86, usage=None),
    ],
)
def test_a_wrong_cost_or_refund_is_found(bad: Ledger) -> None:
    assert [each[0] for each in bad.violations()][:1] == ["4"]


def test_two_ends_and_an_end_without_a_refund_beside_it_are_found() -> None:
    good = log("ResponseFailed", 0, 112, usage=None)
    end, refund = good.lines[-1], good.lines[-2]
    good.lines.append(end)
    assert any(each.startswith("3: ") for each in good.violations())
    good.lines[-3:] = [end, refund]
    assert any(each.startswith("9: ") for each in good.violations())


def test_an_end_that_comes_too_late_or_out_of_nothing_is_found() -> None:
    late = log("ResponseFailed", 0, 112, usage=None)
    late.lines[-2:] = [dataclasses.replace(line, at=200 * 10**6) for line in late.lines[-2:]]
    assert [each[:2] for each in late.violations()] == ["7:"]
    of_nothing = log("ResponseFailed", 0, 112, usage=None)
    del of_nothing.lines[2]
    assert "3:" in [each[:2] for each in of_nothing.violations()]
