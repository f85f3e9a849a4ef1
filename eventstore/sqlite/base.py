"""The connection: to the file that is there, or to none.

SQLite makes an empty file of a name that was mistyped, and one more when the file of a running
service is moved away. Here both are refused, with the name of the file.
"""

import sqlite3
from pathlib import Path
from typing import Any

from django.db.backends.sqlite3 import base


class DatabaseWrapper(base.DatabaseWrapper):
    """A connection that never makes the database that it is asked to open."""

    def get_new_connection(self, conn_params: dict[str, Any]) -> Any:
        """Connect to the database's file (https://sqlite.org/uri.html, `mode=rw`)."""
        file = file_of(conn_params["database"])
        if file is None:
            return super().get_new_connection(conn_params)
        if not file.exists():
            raise sqlite3.OperationalError(
                f"there is no database at {file}; for a new one run: python manage.py migrate"
            )
        name = f"{file.absolute().as_uri()}?mode=rw"
        return super().get_new_connection({**conn_params, "database": name})


def file_of(name: str | Path) -> Path | None:
    """The file that a database's name means; None for one in memory, or a URI of its own."""
    if str(name) == ":memory:" or str(name).startswith("file:"):
        return None
    return Path(name)
