"""`manage.py verify` as tests call it."""

import io
from typing import Any

from django.core.management import call_command
from django.db import connection

#: The events of each checkpoint.
PARTS = (3, 4, 5)


def verify(*arguments: str) -> tuple[int, list[str]]:
    """The exit status and the lines on standard output."""
    out = io.StringIO()
    try:
        call_command("verify", *arguments, stdout=out)
    except SystemExit as ended:
        return int(str(ended.code)), out.getvalue().splitlines()
    return 0, out.getvalue().splitlines()


def differences(*arguments: str) -> list[str]:
    """The lines that name differences; there have to be some."""
    status, lines = verify("--seals", *arguments)
    assert status == 1
    return [line for line in lines[:-3] if not line.startswith("stream ")]


def sql(statement: str, *parameters: Any) -> None:
    with connection.cursor() as cursor:
        cursor.execute(statement, parameters)
        assert cursor.rowcount
