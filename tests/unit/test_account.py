import pytest

from accounts.domain import (
    Account,
    AccountDeactivated,
    AccountSnapshot,
    InsufficientTokens,
    JwtsRevoked,
    PasswordChanged,
    RoleChanged,
    TokensDebited,
    TokensGranted,
    TokensRefunded,
    UserActivated,
    UserDeactivated,
    UserRegistered,
)
from eventstore.domain import Event
from tests.unit.story import ALICE, GIFT, HELLO, TALK, Fact, fact, given, new_facts

REGISTERED = fact(UserRegistered, username="alice", default_conversation_id=TALK)

DEACTIVATED = fact(UserDeactivated, epoch=1, reason="spam")


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
    account = given(Account, REGISTERED, granted(500), DEACTIVATED)
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


def test_a_grant_adds_to_the_balance_and_says_why() -> None:
    account = given(Account, REGISTERED, granted(500))
    account.grant(300, reason="sorry", grant_id=GIFT)
    assert account.tokens == 800
    assert new_facts(account) == [fact(TokensGranted, amount=300, reason="sorry", grant_id=GIFT)]


def test_a_deactivated_account_may_be_granted() -> None:
    account = given(Account, REGISTERED, DEACTIVATED)
    account.grant(300, reason="sorry", grant_id=GIFT)
    assert account.tokens == 300


def test_everybody_begins_as_a_member() -> None:
    assert given(Account, REGISTERED).role == "member"


def test_a_role_changes_and_says_why() -> None:
    account = given(Account, REGISTERED)
    account.change_role("staff", reason="support")
    assert account.role == "staff"
    account.change_role("member", reason=None)
    assert account.role == "member"
    assert new_facts(account) == [
        fact(RoleChanged, role="staff", reason="support"),
        fact(RoleChanged, role="member", reason=None),
    ]


def test_the_role_that_an_account_has_is_no_change() -> None:
    account = given(Account, REGISTERED)
    account.change_role("member", reason="again")
    assert new_facts(account) == []


def test_a_deactivation_begins_a_new_epoch() -> None:
    account = given(Account, REGISTERED, fact(PasswordChanged, epoch=1))
    account.deactivate(reason="spam")
    assert (account.active, account.jwt_epoch) == (False, 2)
    assert new_facts(account) == [fact(UserDeactivated, epoch=2, reason="spam")]


def test_an_activation_leaves_the_epoch_so_that_old_jwts_stay_void() -> None:
    account = given(Account, REGISTERED, DEACTIVATED)
    account.activate(reason=None)
    assert (account.active, account.jwt_epoch) == (True, 1)
    assert new_facts(account) == [fact(UserActivated, reason=None)]


def test_what_is_so_already_is_no_event() -> None:
    active, deactivated = given(Account, REGISTERED), given(Account, REGISTERED, DEACTIVATED)
    active.activate(reason="again")
    deactivated.deactivate(reason="again")
    assert new_facts(active) == new_facts(deactivated) == []


def test_a_deactivated_account_takes_refunds() -> None:
    account = given(
        Account,
        REGISTERED,
        granted(500),
        fact(TokensDebited, amount=500, message_id=HELLO),
        DEACTIVATED,
    )
    account.refund(500, message_id=HELLO, reason="deadline")
    assert account.tokens == 500


def test_a_snapshot_of_before_there_were_roles_is_not_used() -> None:
    snapshot = AccountSnapshot.take(given(Account, REGISTERED))
    assert snapshot.fits()
    del snapshot.state["role"]
    assert not snapshot.fits()


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
