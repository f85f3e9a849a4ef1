"""`manage.py grant_tokens` and `manage.py set_role`"""

from collections.abc import Callable
from uuid import UUID

import pytest
from django.core.management import CommandError, call_command
from django.db import OperationalError
from pytest_django import Settings

from accounts import names, staff_commands
from accounts.commands import RegisterUser, register_user
from accounts.domain import Account
from accounts.management.commands import grant_tokens as grant_command
from accounts.models import Credential
from accounts.names import find_user
from eventstore import keys
from eventstore.cause import shell_cause
from eventstore.log import EventLog
from eventstore.reading import max_position, read_events
from tests.accounts.conftest import CAUSE, PASSWORD

Capture = pytest.CaptureFixture[str]

NOBODY = "00000000-0000-4000-8000-000000000000"


@pytest.fixture(autouse=True)
def waited_for(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, str]]:
    """What a command would have waited for, if there were a runner."""
    waited: list[tuple[int, str]] = []
    monkeypatch.setattr(
        grant_command,
        "wait_until_shown",
        lambda position, *names: waited.extend((position, name) for name in names),
    )
    return waited


def tokens(user_id: UUID) -> int:
    return EventLog().load(Account, user_id).tokens


def grant(user: str, amount: str = "500", *, reason: str = "sorry", key: str | None = None) -> None:
    with_key = [] if key is None else ["--key", key]
    call_command("grant_tokens", user, amount, "--reason", reason, *with_key)


# Whom a command means


@pytest.mark.parametrize("called", ["Alice", "alice", "ALICE"])
def test_a_user_is_found_by_name_whatever_the_case(alice: UUID, called: str) -> None:
    assert find_user(called) == alice


def test_a_user_is_found_by_id(alice: UUID) -> None:
    assert find_user(str(alice)) == alice


@pytest.mark.parametrize("written", [str, lambda user_id: user_id.hex, lambda i: str(i).upper()])
def test_a_name_that_looks_like_somebodys_id_does_not_stand_in_for_them(
    alice: UUID, written: Callable[[UUID], str], capsys: Capture
) -> None:
    called = written(alice)
    mallory = register_user(RegisterUser(called, PASSWORD), CAUSE).user_id
    with pytest.raises(CommandError) as refusal:
        grant(called)
    assert str(refusal.value) == (
        f"{called} is the id of one user and the name of another; say id:{called} or name:{called}"
    )
    assert (tokens(alice), tokens(mallory)) == (4000, 4000)
    grant(f"id:{called}", "1")
    grant(f"name:{called}", "2")
    assert (tokens(alice), tokens(mallory)) == (4001, 4002)
    first, second = capsys.readouterr().out.splitlines()
    assert f"{alice}" in first
    assert second.startswith(f"{called} ({mallory}): 2 tokens")
    assert find_user(str(mallory)) == mallory


def test_a_user_whose_name_is_their_own_id_is_one_user(
    alice: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(names, "_with_name", lambda name: alice)
    assert find_user(str(alice)) == alice


@pytest.mark.parametrize("called", ["id:Alice", "name:{}", "Name:Alice", "id:", "name:", ":Alice"])
def test_what_is_said_to_be_meant_is_meant(alice: UUID, called: str) -> None:
    assert find_user(called.format(alice)) is None
    assert find_user("name:Alice") == find_user(f"id:{alice}") == alice


def test_a_name_that_looks_like_nobodys_id_is_found(alice: UUID) -> None:
    zoe = register_user(RegisterUser(NOBODY, PASSWORD), CAUSE).user_id
    assert find_user(NOBODY) == zoe


@pytest.mark.parametrize("called", ["", "bob", NOBODY, "a" * 5_000, "ali ce", "\udcff", "alice\n"])
def test_nobody_else_is_found(alice: UUID, called: str) -> None:
    assert find_user(called) is None


def test_a_stream_of_another_kind_is_no_user(alice: UUID) -> None:
    assert find_user(str(Credential.objects.get(user_id=alice).claim_id)) is None


# grant_tokens


def test_a_grant_says_what_was_done_and_is_in_the_log(alice: UUID, capsys: Capture) -> None:
    before = max_position()
    grant("alice")
    assert capsys.readouterr().out == f"alice ({alice}): 500 tokens granted, the balance is 4500\n"
    events = read_events(before)
    assert [event.actor for event in events] == [shell_cause().actor] * 2
    assert keys.decrypt_all([event.data["reason"] for event in events]) == ["sorry"] * 2


def test_a_grant_waits_until_the_balance_shows_it(
    alice: UUID, waited_for: list[tuple[int, str]]
) -> None:
    grant("alice")
    assert (max_position(), "balances") in waited_for


def test_a_user_who_is_called_by_id_is_named_once(alice: UUID, capsys: Capture) -> None:
    grant(str(alice))
    assert capsys.readouterr().out == f"{alice}: 500 tokens granted, the balance is 4500\n"


def test_a_repeat_with_the_key_grants_nothing_and_says_so(alice: UUID, capsys: Capture) -> None:
    grant("alice", key="monday")
    grant(str(alice), key="monday")
    said = capsys.readouterr().out.splitlines()
    assert said[1] == f"{alice}: 500 tokens had been granted before, the balance is 4500"
    assert tokens(alice) == 4500


def test_without_a_key_every_grant_is_another(alice: UUID) -> None:
    grant("alice")
    grant("alice")
    assert tokens(alice) == 5000


REFUSED = [
    ({"user": "nobody"}, "there is no user 'nobody'"),
    ({"user": NOBODY}, f"there is no user '{NOBODY}'"),
    ({"user": "\udcff"}, "there is no user '\\udcff'"),
    ({"amount": "0"}, "amount: Input should be greater than or equal to 1"),
    ({"amount": "-5"}, "amount: Input should be greater than or equal to 1"),
    ({"amount": "1000000001"}, "amount: Input should be less than or equal to 1000000000"),
    ({"amount": "9" * 5_000}, "amount: Input should be a valid integer"),
    ({"amount": "1e3"}, "amount: Input should be a valid integer"),
    ({"amount": "\u0665"}, "amount: Input should be a valid integer"),
    ({"amount": ""}, "amount: Input should be a valid integer"),
    ({"reason": ""}, "reason: String should have at least 1 character"),
    ({"reason": "x" * 501}, "reason: String should have at most 500 characters"),
    ({"reason": "\udcff"}, "reason: Input should be a valid string"),
    ({"key": ""}, "--key: 1 to 255 visible ASCII characters"),
    ({"key": "a b"}, "--key: 1 to 255 visible ASCII characters"),
    ({"key": "x" * 256}, "--key: 1 to 255 visible ASCII characters"),
]


@pytest.mark.parametrize(("change", "line"), REFUSED, ids=lambda value: str(value)[:30])
def test_bad_input_is_one_line_and_nothing_is_granted(
    alice: UUID, change: dict[str, str], line: str
) -> None:
    before = max_position()
    with pytest.raises(CommandError) as refusal:
        grant(**({"user": "alice"} | change))
    assert str(refusal.value).startswith(line)
    assert "\n" not in str(refusal.value)
    assert refusal.value.returncode != 0
    assert max_position() == before


@pytest.mark.parametrize("change", [{"amount": "501"}, {"reason": "sorry!"}, {"user": "bob"}])
def test_the_key_of_another_grant_is_refused(
    alice: UUID, bob: UUID, change: dict[str, str]
) -> None:
    grant("alice", key="monday")
    with pytest.raises(CommandError, match="--key: this key was used for a grant to another user"):
        grant(**({"user": "alice", "key": "monday"} | change))
    assert (tokens(alice), tokens(bob)) == (4500, 4000)


# set_role


def test_a_role_is_set_and_taken_back(alice: UUID, capsys: Capture) -> None:
    before = max_position()
    for role in ("staff", "staff", "member"):
        call_command("set_role", "alice", role, "--reason", "support")
        assert Credential.objects.get(user_id=alice).role == role
    assert capsys.readouterr().out.splitlines() == [
        f"alice ({alice}) is now staff",
        f"alice ({alice}) was already staff",
        f"alice ({alice}) is now member",
    ]
    events = read_events(before)
    assert [event.data["role"] for event in events] == ["staff", "member"]
    assert {event.actor for event in events} == {shell_cause().actor}
    assert keys.decrypt_all([event.data["reason"] for event in events]) == ["support"] * 2


def test_a_role_needs_no_reason(alice: UUID) -> None:
    call_command("set_role", str(alice), "staff")
    assert Credential.objects.get(user_id=alice).role == "staff"


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["nobody", "staff"], "there is no user 'nobody'"),
        (["alice", "king"], "there is no role 'king'; there are member and staff"),
        (["alice", "Staff"], "there is no role 'Staff'; there are member and staff"),
        (["alice", "staff", "--reason", ""], "reason: String should have at least 1 character"),
    ],
)
def test_a_role_that_cannot_be_set_is_one_line(
    alice: UUID, arguments: list[str], line: str
) -> None:
    before = max_position()
    with pytest.raises(CommandError) as refusal:
        call_command("set_role", *arguments)
    assert str(refusal.value) == line
    assert max_position() == before


# What is wrong around them


def test_a_database_that_is_away_is_one_line(alice: UUID, monkeypatch: pytest.MonkeyPatch) -> None:
    def away() -> None:
        raise OperationalError("no route\nto host")

    monkeypatch.setattr(staff_commands, "transaction_with_log", away)
    with pytest.raises(CommandError, match=r"^the database cannot be used: no route to host$"):
        grant("alice")


def test_a_missing_data_key_is_one_line(alice: UUID, settings: Settings) -> None:
    del settings.DATA_KEY
    with pytest.raises(CommandError, match=r"^DATA_KEY is missing"):
        grant("alice")


def test_another_data_key_is_one_line(alice: UUID, settings: Settings) -> None:
    settings.DATA_KEY = b"x" * 32
    keys.forget()
    with pytest.raises(CommandError, match=r"^DATA_KEY does not open key"):
        grant("alice")
