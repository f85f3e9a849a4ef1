"""How passwords are kept."""

from uuid import UUID

import pytest
from argon2 import extract_parameters
from argon2.low_level import Type
from django.contrib.auth.hashers import Argon2PasswordHasher, make_password
from pytest_django import Settings

from accounts.commands import LogIn, WrongCredentials, log_in
from accounts.models import Credential
from config import settings as own_settings
from tests.accounts.conftest import PASSWORD


@pytest.fixture(autouse=True)
def real_hashes(settings: Settings, fresh_process: None) -> None:
    settings.PASSWORD_HASHERS = own_settings.PASSWORD_HASHERS


def stored(user_id: UUID) -> str:
    return Credential.objects.get(user_id=user_id).password_hash


def test_a_hash_is_argon2id_with_parameters_of_owasp(alice: UUID) -> None:
    parameters = extract_parameters(stored(alice).removeprefix("argon2"))

    assert parameters.type is Type.ID
    assert (parameters.memory_cost, parameters.time_cost, parameters.parallelism) == (47_104, 1, 1)
    assert parameters.hash_len == 32
    assert parameters.salt_len >= 16


def test_a_hash_of_other_parameters_is_replaced_when_its_password_is_next_seen(
    alice: UUID,
) -> None:
    salt = "0123456789abcdefghijkl"
    older = Argon2PasswordHasher().encode(PASSWORD, salt)
    Credential.objects.filter(user_id=alice).update(password_hash=older)

    with pytest.raises(WrongCredentials):
        log_in(LogIn("alice", "a guess"))
    assert stored(alice) == older
    log_in(LogIn("alice", PASSWORD))
    replaced = stored(alice)
    log_in(LogIn("alice", PASSWORD))

    assert "m=47104,t=1,p=1" in replaced
    assert stored(alice) == replaced


def test_a_hash_that_is_of_today_stays(alice: UUID) -> None:
    before = stored(alice)

    log_in(LogIn("alice", PASSWORD))

    assert stored(alice) == before
    assert make_password(PASSWORD) != before
