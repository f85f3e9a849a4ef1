import pytest

from accounts.grants import Grant, GrantMade
from tests.unit.story import ALICE, BOB, GIFT, fact, given, new_facts

MADE = fact(GrantMade, user_id=ALICE, amount=300, reason="sorry")


def test_a_grant_says_to_whom_how_much_and_why() -> None:
    grant = Grant.make(GIFT, user_id=ALICE, amount=300, reason="sorry")
    assert (grant.id, grant.version) == (GIFT, 1)
    assert new_facts(grant) == [MADE]


def test_a_repeat_is_the_same_grant() -> None:
    assert given(Grant, MADE, stream_id=GIFT).gives(user_id=ALICE, amount=300, reason="sorry")


@pytest.mark.parametrize(
    "other", [{"user_id": BOB}, {"amount": 301}, {"reason": "sorry!"}, {"reason": "Sorry"}]
)
def test_another_user_amount_or_reason_is_another_grant(other: dict[str, object]) -> None:
    said: dict[str, object] = {"user_id": ALICE, "amount": 300, "reason": "sorry"}
    assert not given(Grant, MADE, stream_id=GIFT).gives(**(said | other))  # type: ignore[arg-type]
