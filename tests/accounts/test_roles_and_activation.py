"""`SetRole`, `DeactivateUser`, `ActivateUser`: accepted, refused, repeated, raced."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, nullcontext
from uuid import UUID, uuid4

import pytest
from django.db import IntegrityError, connection

from accounts import commands, staff_commands
from accounts.commands import (
    ChangePassword,
    LogIn,
    UserNotFound,
    WrongCredentials,
    change_password,
    log_in,
)
from accounts.domain import Account, AccountDeactivated
from accounts.jwt_auth import Caller, authenticate_jwt
from accounts.models import Credential
from accounts.passwords import hash_password
from accounts.staff_commands import (
    ActivateUser,
    Changed,
    DeactivateUser,
    SetRole,
    activate_user,
    deactivate_user,
    set_role,
)
from eventstore import keys
from eventstore.log import EventLog, event_log
from eventstore.reading import max_position, read_events
from tests.accounts.conftest import CAUSE, PASSWORD

CALLERS = 6

COMMANDS: list[Callable[[UUID], Changed]] = [
    lambda user_id: set_role(SetRole(user_id, "staff", "because"), CAUSE),
    lambda user_id: deactivate_user(DeactivateUser(user_id, "because"), CAUSE),
    lambda user_id: activate_user(ActivateUser(user_id, "because"), CAUSE),
]


def jwt_of_alice() -> str:
    return log_in(LogIn("alice", PASSWORD)).jwt


def credential(user_id: UUID) -> tuple[bool, str, int]:
    found = Credential.objects.get(user_id=user_id)
    return found.active, found.role, found.jwt_epoch


def stored(user_id: UUID) -> tuple[bool, str, int]:
    """The same as the log has it."""
    account = EventLog().load(Account, user_id)
    return account.active, account.role, account.jwt_epoch


# Accepted


@pytest.mark.parametrize(
    ("number", "topic"), [(0, "RoleChanged"), (1, "UserDeactivated"), (2, "UserActivated")]
)
def test_the_event_says_who_and_why(alice: UUID, number: int, topic: str) -> None:
    if number == 2:
        deactivate_user(DeactivateUser(alice), CAUSE)
    before = max_position()
    done = COMMANDS[number](alice)
    (event,) = read_events(before)
    assert (event.topic, event.stream_id) == (f"chatledger.accounts.{topic}", alice)
    assert (event.actor, event.request_id) == ("staff:test", "request-1")
    assert event.data["reason"].key_id == alice
    assert keys.decrypt_all([event.data["reason"]]) == ["because"]
    assert done == Changed(changed=True, position=event.position)


def test_a_reason_may_be_left_out(alice: UUID) -> None:
    before = max_position()
    set_role(SetRole(alice, "staff"), CAUSE)
    deactivate_user(DeactivateUser(alice), CAUSE)
    activate_user(ActivateUser(alice), CAUSE)
    assert [event.data["reason"] for event in read_events(before)] == [None, None, None]


def test_a_role_counts_with_the_jwt_that_is_there(alice: UUID) -> None:
    jwt = jwt_of_alice()
    set_role(SetRole(alice, "staff"), CAUSE)
    assert authenticate_jwt(jwt) == Caller(alice, "staff")
    set_role(SetRole(alice, "member"), CAUSE)
    assert authenticate_jwt(jwt) == Caller(alice, "member")
    assert credential(alice) == stored(alice)


def test_a_deactivated_user_neither_logs_in_nor_uses_a_jwt(alice: UUID) -> None:
    jwt = jwt_of_alice()
    deactivate_user(DeactivateUser(alice), CAUSE)
    assert authenticate_jwt(jwt) is None
    with pytest.raises(WrongCredentials):
        jwt_of_alice()
    assert credential(alice) == stored(alice) == (False, "member", 1)


def test_an_activated_user_logs_in_and_old_jwts_stay_void(alice: UUID) -> None:
    old = jwt_of_alice()
    deactivate_user(DeactivateUser(alice), CAUSE)
    activate_user(ActivateUser(alice), CAUSE)
    assert authenticate_jwt(old) is None
    assert authenticate_jwt(jwt_of_alice()) == Caller(alice, "member")
    assert credential(alice) == stored(alice) == (True, "member", 1)


def test_nobody_else_is_touched(alice: UUID, bob: UUID) -> None:
    for command in COMMANDS[:2]:
        command(bob)
    assert credential(alice) == stored(alice) == (True, "member", 0)


# Refused


@pytest.mark.parametrize("number", range(3))
def test_nobody_is_not_found(number: int) -> None:
    with pytest.raises(UserNotFound):
        COMMANDS[number](uuid4())
    assert max_position() == 0


@pytest.mark.parametrize("number", range(3))
def test_a_stream_of_another_kind_is_nobody(alice: UUID, number: int) -> None:
    claim = Credential.objects.get(user_id=alice).claim_id
    with pytest.raises(UserNotFound):
        COMMANDS[number](claim)


def test_the_event_and_the_credential_are_written_together_or_not_at_all(
    alice: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = max_position()

    def full(*_: object, **__: object) -> int:
        raise IntegrityError("no room")

    monkeypatch.setattr(EventLog, "append", full)
    with pytest.raises(IntegrityError):
        deactivate_user(DeactivateUser(alice), CAUSE)
    assert max_position() == before
    assert credential(alice) == stored(alice) == (True, "member", 0)


# Repeated


@pytest.mark.parametrize("number", range(3))
def test_a_repeat_appends_nothing(alice: UUID, number: int) -> None:
    COMMANDS[number](alice)
    before = max_position()
    assert COMMANDS[number](alice) == Changed(changed=False, position=before)
    assert max_position() == before


def test_what_this_process_remembers_does_not_make_a_repeat(alice: UUID) -> None:
    assert event_log().load(Account, alice).active
    there = EventLog()
    account = there.load(Account, alice)
    account.deactivate(reason=None)
    there.append(account, cause=CAUSE)
    assert activate_user(ActivateUser(alice), CAUSE).changed


# Raced


@pytest.mark.parametrize("number", range(2))
def test_of_many_processes_one_changes_it(
    alice: UUID, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (commands, staff_commands):
        monkeypatch.setattr(module, "event_log", EventLog)
    monkeypatch.setattr(staff_commands, "one_at_a_time", lambda user_id: nullcontext())

    def one(_: int) -> bool:
        with closing(connection):
            return COMMANDS[number](alice).changed

    before = max_position()
    with ThreadPoolExecutor(CALLERS) as pool:
        assert sum(pool.map(one, range(CALLERS))) == 1
    assert len(read_events(before)) == 1
    assert credential(alice) == stored(alice)


def test_no_message_is_paid_for_once_the_account_is_deactivated(alice: UUID) -> None:
    here = event_log()
    account = here.load(Account, alice)
    deactivate_user(DeactivateUser(alice), CAUSE)
    account.debit(100, message_id=uuid4())
    with pytest.raises(Exception, match="has moved past"):
        here.append(account, cause=CAUSE)
    with pytest.raises(AccountDeactivated):
        here.load(Account, alice, fresh=True).debit(100, message_id=uuid4())


def test_a_password_change_that_a_deactivation_overtakes_is_refused(
    alice: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    def overtaken(password: str) -> str:
        deactivate_user(DeactivateUser(alice), CAUSE)
        return hash_password(password)

    monkeypatch.setattr(commands, "hash_password", overtaken)
    change = ChangePassword(alice, PASSWORD, "another horse, another battery")
    with pytest.raises(AccountDeactivated):
        change_password(change, CAUSE)
    assert credential(alice) == stored(alice) == (False, "member", 1)
    activate_user(ActivateUser(alice), CAUSE)
    assert authenticate_jwt(jwt_of_alice()) == Caller(alice, "member")
