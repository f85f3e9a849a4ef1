"""A host whose clock is wrong: `python -m tests.faults.clock_off FILE COMMAND…`.

Runs `manage.py COMMAND…` with each clock on the wall that this process reads, and no other, wrong
by the seconds that stand in the file at that moment. A steady clock stays as it is: nobody sets it.
"""

import datetime as dt
import os
import sys
import time
from pathlib import Path
from typing import Any


def put_off(file: Path) -> None:
    """Set this process's clock wrong by what the file says, now and whenever that changes."""
    right = time.time_ns

    def time_ns() -> int:
        return right() + int(file.read_text()) * 1_000_000_000

    time.time_ns = time_ns
    time.time = lambda: time_ns() / 1_000_000_000

    class WrongDatetime(dt.datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return _datetime.fromtimestamp(time.time(), tz)

    _datetime = dt.datetime
    # PyJWT looks at the clock by itself.
    from jwt import api_jwt

    own: Any = api_jwt
    own.datetime = WrongDatetime


def main() -> None:
    file, *command = sys.argv[1:]
    put_off(Path(file))
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
    from django.core.management import execute_from_command_line

    execute_from_command_line(["manage.py", *command])


if __name__ == "__main__":
    main()
