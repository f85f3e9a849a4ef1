"""What the read models show, in a form that any database and any later version can be held to."""

import json
from hashlib import sha256
from typing import Any
from uuid import UUID

from django.db import connection

from eventstore import keys
from projections import queries
from projections.registry import PROJECTIONS

Shown = dict[str, Any]


def shown() -> Shown:
    """Each read model's rows, and each message and title as its reader gets it."""
    keys.forget()
    return {
        "read_models": {name: _rows(name) for name in sorted(PROJECTIONS)},
        "texts": sorted(_texts(), key=json.dumps),
    }


def written(found: Shown) -> str:
    """The JSON of a golden file: what was shown, and its digest."""
    return json.dumps({"digest": digest(found), **found}, indent=1, ensure_ascii=False) + "\n"


def digest(found: Shown) -> str:
    """SHA-256 over the read models, row for row."""
    canonical = json.dumps(found["read_models"], sort_keys=True, separators=(",", ":"))
    return sha256(canonical.encode()).hexdigest()


def only_columns_of(found: Shown, golden: Shown) -> Shown:
    """What is shown, without the read models and columns that there were not at the time."""
    models = {
        name: [
            {column: row[column] for column in was if column in row}
            for row, was in _pairs(found["read_models"].get(name, []), rows)
        ]
        for name, rows in golden["read_models"].items()
    }
    return {**found, "read_models": models}


def _pairs(rows: list[Any], golden: list[Any]) -> list[tuple[Any, Any]]:
    # As many as there are, by the columns of then; a table that was empty has none to go by.
    columns = golden[0] if golden else {}
    return [(row, columns or row) for row in rows]


def _rows(name: str) -> list[dict[str, Any]]:
    table = PROJECTIONS[name].table
    columns = list(table.types)
    with connection.cursor() as cursor:
        cursor.execute(
            f"SELECT {', '.join(columns)} FROM {table.name} WHERE generation ="
            " (SELECT generation FROM projections_pointer WHERE name = %s)",
            [name],
        )
        rows = [dict(zip(columns, map(_plain, row), strict=True)) for row in cursor.fetchall()]
    return sorted(rows, key=json.dumps)


def _texts() -> list[list[Any]]:
    """Whose conversation, its title, message, response: decrypted, as its owner reads them."""
    found: list[list[Any]] = []
    for user in queries.list_users(None, 1_000):
        for talk in queries.list_conversations(user.id, None, 1_000):
            page = queries.messages(user.id, talk.id, after=None, before=None, limit=1_000)
            assert page is not None
            found += [
                [user.username, talk.title, each.message, each.response] for each in page.rows
            ]
    return found


def _plain(value: Any) -> Any:
    if isinstance(value, UUID):
        return value.hex
    if isinstance(value, bytes | memoryview):
        return bytes(value).hex()
    return int(value) if isinstance(value, bool) else value
