"""Credentials and keys compared with the log: what differs is named by its user."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from unittest.mock import patch
from uuid import UUID, uuid4

import pytest
from django.db import connection, transaction
from django.test.utils import override_settings
from pytest_django import Settings

from accounts.models import Credential
from accounts.staff_commands import DeactivateUser, SetRole, deactivate_user, set_role
from audit import credentials, stored
from audit.credentials import compare_credentials
from eventstore import keys
from eventstore.models import DataKey, EventRecord
from tests.audit.accounts import CAUSE, erase, live_through, register
from tests.audit.verifying import sql

pytestmark = pytest.mark.django_db(transaction=True)
STRANGER = UUID("57a00000-0000-4000-8000-000000000009")


@pytest.fixture(autouse=True)
def cheap_hashes(settings: Settings) -> None:
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]


@pytest.fixture
def alice() -> UUID:
    """A member of staff, beside one who is deactivated and one who is erased."""
    user = register("alice")
    live_through(user)
    deactivate_user(DeactivateUser(register("carol")), CAUSE)
    erase(register("bob"))
    return user


def line(user: UUID, *differences: str) -> list[str]:
    return [f"credentials: user_id {user}: {'; '.join(differences)}"]


@pytest.mark.usefixtures("alice")
def test_whatever_has_happened_to_accounts_they_agree() -> None:
    assert compare_credentials() == []


def test_a_log_without_accounts_agrees() -> None:
    assert compare_credentials() == []
    keys.names_key()
    assert compare_credentials() == []


@pytest.mark.parametrize(
    ("column", "value", "shown"),
    [
        ("role", "member", "role is 'member', by the log 'staff'"),
        ("role", "emperor", "role is 'emperor', by the log 'staff'"),
        ("active", False, "active is False, by the log True"),
        ("jwt_epoch", -5, "jwt_epoch is -5, by the log 3"),
        ("claim_id", STRANGER, f"claim_id is {STRANGER}, by the log "),
    ],
)
def test_a_column_that_was_changed_is_named(
    alice: UUID, column: str, value: Any, shown: str
) -> None:
    Credential.objects.filter(user_id=alice).update(**{column: value})
    (found,) = compare_credentials()
    assert found.startswith(line(alice, shown)[0])


def test_several_changes_of_a_user_are_one_line(alice: UUID) -> None:
    Credential.objects.filter(user_id=alice).update(role="member", jwt_epoch=2)
    DataKey.objects.filter(id=alice).update(wrapped=None)
    both = ("role is 'member', by the log 'staff'", "jwt_epoch is 2, by the log 3")
    assert compare_credentials() == line(alice, *both, "it has no key")


def test_a_credential_of_nobody_is_named(alice: UUID) -> None:
    Credential.objects.create(user_id=STRANGER, claim_id=uuid4(), password_hash="x", role="staff")
    said = "the log has no such account, and it has a credential"
    assert compare_credentials() == line(STRANGER, said)


def test_a_credential_that_is_gone_is_named(alice: UUID) -> None:
    Credential.objects.filter(user_id=alice).delete()
    assert compare_credentials() == line(alice, "it has no credential")


def test_a_key_that_is_gone_or_wrapped_by_another_is_named(alice: UUID) -> None:
    DataKey.objects.filter(id=alice).update(wrapped_by=STRANGER)
    assert compare_credentials() == line(alice, "it has no key")
    DataKey.objects.filter(id=alice).delete()
    assert compare_credentials() == line(alice, "it has no key")


def test_the_key_of_the_names_is_missed(alice: UUID) -> None:
    DataKey.objects.filter(id=keys.NAMES_KEY_ID).update(wrapped=None)
    assert compare_credentials() == ["credentials: the key of the names is missing"]


def test_what_came_back_of_an_erased_user_is_named(alice: UUID) -> None:
    dora = register("dora")
    credential, key = Credential.objects.get(user_id=dora), DataKey.objects.get(id=dora)
    erase(dora)
    credential.save(force_insert=True)
    key.save()
    had = ("it is erased, and has a credential", "it is erased, and has a key")
    assert compare_credentials() == line(dora, *had)


def test_neither_a_key_nor_a_text_is_needed(alice: UUID) -> None:
    keys.forget()
    with override_settings(DATA_KEY=os.urandom(32), DATA_KEY_PREVIOUS=None):
        assert compare_credentials() == []


@pytest.mark.parametrize("data", [b"{", b"{}", b"[]", b'{"epoch":{"box":1}}'])
def test_an_event_that_cannot_be_read_is_named_and_stops_nothing(alice: UUID, data: bytes) -> None:
    events = EventRecord.objects.filter(topic="chatledger.accounts.JwtsRevoked")
    events.update(data=data)
    position = events.get().position
    assert compare_credentials() == [
        f"credentials: event {position} cannot be read",
        *line(alice, "jwt_epoch is 3, by the log 2"),
    ]


def test_what_is_named_is_bounded(alice: UUID, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stored, "DIFFERENCES_MAX", 1)
    Credential.objects.update(role="emperor")
    assert compare_credentials()[1:] == ["credentials: and more"]


def test_an_id_that_no_query_finds_is_nobodys(alice: UUID) -> None:
    if connection.vendor == "postgresql":
        return  # It stores ids and no texts.
    sql("UPDATE accounts_credential SET user_id = upper(user_id) WHERE user_id = %s", alice.hex)
    nobody, missing = sorted(compare_credentials())
    assert f"{alice.hex.upper()!r}: the log has no such account" in nobody
    assert [missing] == line(alice, "it has no credential")


def test_a_role_that_changes_meanwhile_is_no_difference(alice: UUID) -> None:
    def meanwhile() -> None:
        try:
            set_role(SetRole(alice, "member"), CAUSE)
            register("erin")
        finally:
            connection.close()

    meet: Callable[..., bool] = credentials._meet_keys

    def later(*arguments: Any) -> bool:
        with ThreadPoolExecutor(1) as thread:
            thread.submit(meanwhile).result(20)
        return meet(*arguments)

    with patch.object(credentials, "_meet_keys", later):
        assert compare_credentials() == []
    assert Credential.objects.get(user_id=alice).role == "member"
    assert compare_credentials() == []


def test_a_transaction_of_the_callers_is_what_is_seen(alice: UUID) -> None:
    with transaction.atomic():
        Credential.objects.filter(user_id=alice).update(role="member")
        assert compare_credentials() == line(alice, "role is 'member', by the log 'staff'")
