"""Give a test run a profile of its own, before Django reads its settings.

`CHATLEDGER_TEST_PROFILE` is `embedded` (SQLite, the default) or `full` (a PostgreSQL and a Redis
that are started here). The run gets fresh keys and a folder of its own; the developer's `var/` is
never touched. With `-n`, all of this belongs to each of the processes that run tests, and the one
that hands the tests out has no services.
"""

import atexit
import os
import shutil
import tempfile
from collections.abc import Generator
from contextlib import ExitStack
from pathlib import Path

import pytest

from config.environment import KEY_NAMES, Environment
from config.keyfile import new_key
from devstack.application import UNLIMITED

PROFILE_VARIABLE = "CHATLEDGER_TEST_PROFILE"
#: Where the folder of the whole run is, which the processes of `-n` share.
RUN_FOLDER_VARIABLE = "CHATLEDGER_TEST_RUN_FOLDER"
PROFILES = ("embedded", "full")

_run = ExitStack()


@pytest.hookimpl(wrapper=True)
def pytest_load_initial_conftests(early_config: pytest.Config) -> Generator[None, object, object]:
    """Start the profile's services first: pytest-django reads the settings inside this hook."""
    atexit.register(_run.close)
    profile = os.environ.get(PROFILE_VARIABLE, "embedded")
    _start(profile, services=not _only_hands_out(early_config))
    return (yield)


def pytest_report_header() -> str:
    return f"chatledger: {os.environ[PROFILE_VARIABLE]} profile"


def pytest_unconfigure() -> None:
    _run.close()


def _only_hands_out(config: pytest.Config) -> bool:
    """Whether this process starts others for the tests, and runs none itself."""
    is_one_of_them = "PYTEST_XDIST_WORKER" in os.environ
    return not is_one_of_them and bool(getattr(config.known_args_namespace, "numprocesses", None))


def _start(profile: str, *, services: bool) -> None:
    if profile not in PROFILES:
        raise pytest.UsageError(
            f"{PROFILE_VARIABLE} is {profile!r}; allowed: {', '.join(PROFILES)}"
        )
    folder = Path(tempfile.mkdtemp(prefix="chatledger-tests-"))
    _run.callback(shutil.rmtree, folder, ignore_errors=True)
    for field in Environment.model_fields:
        os.environ.pop(field.upper(), None)
    os.environ |= {name: new_key() for name in KEY_NAMES} | UNLIMITED
    os.environ |= {PROFILE_VARIABLE: profile, "VAR_DIR": str(folder / "var")}
    os.environ.setdefault(RUN_FOLDER_VARIABLE, str(folder))
    if profile == "full" and services:
        _start_services(folder)


def _start_services(folder: Path) -> None:
    from devstack.processes import DevstackError
    from devstack.services import start_postgres, start_redis

    try:
        postgres = start_postgres(folder / "postgres")
        _run.callback(postgres.stop)
        redis = start_redis(folder / "redis")
        _run.callback(redis.stop)
    except DevstackError as error:
        raise pytest.UsageError(str(error)) from error
    os.environ |= {"DATABASE_URL": postgres.url, "REDIS_URL": redis.url}
