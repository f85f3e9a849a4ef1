import pytest

from accounts.domain import (
    Account,
    AccountDeactivated,
    AccountSnapshot,
    InsufficientTokens,
    JwtsRevoked,
    PasswordChanged,
    TokensDebited,
    TokensGranted,
    TokensRefunded,
    UserRegistered,
)
from eventstore.domain import Event
from tests.unit.story import ALICE, HELLO, TALK, Fact, fact, given, new_facts

REGISTERED = fact(UserRegistered, username="alice", default_conversation_id=TALK)


def granted(amount: int) -> Fact:
    return fact(TokensGranted, amount=amount, reason="signup", grant_id=None)


def test_a_registration_opens_an_account_with_its_grant() -> None:
    account = Account.register(ALICE, username="alice", default_conversation_id=TALK, grant=4000)
    assert account.tokens == 4000
    assert new_facts(account) == [REGISTERED, granted(4000)]


def test_a_registration_without_a_grant_grants_nothing() -> None:
    account = Account.register(ALICE, username="alice", default_conversation_id=TALK, grant=0)
    assert new_facts(account) == [REGISTERED]


def test_a_debit_within_the_balance_is_accepted() -> None:
    account = given(Account, REGISTERED, granted(500))
    account.debit(300, message_id=HELLO)
    assert account.tokens == 200
    assert new_facts(account) == [fact(TokensDebited, message_id=HELLO, amount=300)]


def test_a_debit_of_the_whole_balance_is_accepted() -> None:
    account = given(Account, REGISTERED, granted(300))
    account.debit(300, message_id=HELLO)
    assert account.tokens == 0


def test_a_debit_beyond_the_balance_is_refused() -> None:
    account = given(Account, REGISTERED, granted(299))
    with pytest.raises(InsufficientTokens) as refusal:
        account.debit(300, message_id=HELLO)
    assert (refusal.value.balance, refusal.value.price) == (299, 300)
    assert new_facts(account) == []


def test_a_debit_on_a_deactivated_account_is_refused() -> None:
    account = given(Account, REGISTERED, granted(500))
    account.active = False
    with pytest.raises(AccountDeactivated):
        account.debit(100, message_id=HELLO)
    assert new_facts(account) == []


def test_a_refund_gives_back_what_a_message_did_not_cost() -> None:
    account = given(
        Account, REGISTERED, granted(500), fact(TokensDebited, amount=500, message_id=HELLO)
    )
    account.refund(500, message_id=HELLO, reason="deadline")
    assert account.tokens == 500
    assert new_facts(account) == [
        fact(TokensRefunded, amount=500, message_id=HELLO, reason="deadline")
    ]


def test_a_refund_of_nothing_is_no_event() -> None:
    account = given(Account, REGISTERED, granted(500))
    account.refund(0, message_id=HELLO, reason="unused")
    assert new_facts(account) == []


def test_a_new_password_and_a_logout_begin_new_epochs() -> None:
    account = given(Account, REGISTERED)
    account.change_password()
    account.revoke_jwts()
    assert account.jwt_epoch == 2
    assert new_facts(account) == [fact(PasswordChanged, epoch=1), fact(JwtsRevoked, epoch=2)]


def test_a_snapshot_gives_the_account_back() -> None:
    account = given(Account, REGISTERED, granted(500))
    restored = AccountSnapshot.take(account).mutate(None)
    assert vars(restored) == vars(account)


def test_a_copy_may_change_without_the_original() -> None:
    account = given(Account, REGISTERED, granted(500))
    copy = account.copy()
    copy.debit(100, message_id=HELLO)
    assert (account.tokens, account.version, account.pending_events) == (500, 2, [])


def test_every_event_of_an_account_has_a_topic_of_its_own() -> None:
    topics = [event.TOPIC for event in Event.__subclasses__() if event.TOPIC]
    assert len(topics) == len(set(topics))
