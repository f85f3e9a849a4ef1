"""A migrated database, made once in a run of the tests: a stack starts sooner with a copy of it."""

import fcntl
import os
from functools import cache
from pathlib import Path

from devstack.application import COMMANDS, clean_environment, run_once
from devstack.services import Postgres
from tests.services_plugin import RUN_FOLDER_VARIABLE

#: No migration asks it anything, but PostgreSQL is never without one.
NO_REDIS = "redis://127.0.0.1:1/0"


@cache
def migrated() -> Postgres:
    """A stopped PostgreSQL whose database is migrated and empty, the same in all of a run."""
    folder = Path(os.environ[RUN_FOLDER_VARIABLE]) / "migrated"
    folder.mkdir(exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        postgres, done = Postgres(folder), folder / "done"
        if not done.exists():
            postgres.start()
            try:
                env = {"DATABASE_URL": postgres.url, "REDIS_URL": NO_REDIS, "VAR_DIR": str(folder)}
                run_once("migrate", COMMANDS["migrate"], clean_environment() | env, folder)
            finally:
                postgres.stop()
            done.touch()
    return postgres
