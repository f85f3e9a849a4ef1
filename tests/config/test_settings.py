"""What the settings come to on a real connection, in the profile of this run."""

import pytest
from django.conf import settings
from django.db import connection

from config.environment import PROJECT_DIR

SQLITE = {
    "PRAGMA journal_mode": "wal",
    "PRAGMA synchronous": 2,  # FULL
    "PRAGMA secure_delete": 1,
    "PRAGMA foreign_keys": 1,
    "PRAGMA busy_timeout": 20_000,
}
POSTGRES = {
    "SHOW idle_in_transaction_session_timeout": "3s",
    "SHOW lock_timeout": "10s",
    "SHOW statement_timeout": "30s",
    "SHOW application_name": "chatledger",
    "SHOW timezone": "UTC",
    "SHOW transaction_isolation": "read committed",
}


@pytest.mark.django_db
def test_a_connection_has_the_settings_of_its_profile() -> None:
    wanted = SQLITE if settings.EMBEDDED else POSTGRES
    found = {}
    with connection.cursor() as cursor:
        for statement in wanted:
            cursor.execute(statement)
            found[statement] = cursor.fetchone()[0]

    assert found == wanted


def test_a_test_run_stays_out_of_the_projects_own_folder() -> None:
    assert not settings.VAR_DIR.is_relative_to(PROJECT_DIR)
    assert str(PROJECT_DIR) not in str(settings.DATABASES["default"]["NAME"])


def test_localhost_stands_for_every_name_of_this_machine() -> None:
    assert {"localhost", "127.0.0.1", "[::1]"} <= set(settings.ALLOWED_HOSTS)
