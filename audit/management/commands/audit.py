"""`manage.py audit USER [--at TIME] [--json]`: a user's statement, from the log alone.

`--json` writes one object:

    {"user_id", "username", "registered_at",
     "at", "balance",        the balance at that time,
     "entry",                the last entry up to it, null when there is none
     "entries": [{"entry", "position", "at", "kind", "amount", "balance", "message_id", "reason"}],
     "read_models": {"positions": {NAME: POSITION}, "agree", "differences": [TEXT]}}

Entries are all there are, the oldest first, whatever the time; `position` is that of the event in
the log. Events behind a read model's position are not compared. Exit status 1 when the read models
differ from the log.
"""

import json
import sys
from argparse import ArgumentParser
from collections.abc import Iterator
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from django.db import DatabaseError
from rich.console import Console
from rich.table import Table
from rich.text import Text

from audit.statements import Audit, CannotAudit, Line, audit
from eventstore.instants import InTheFuture, MalformedInstant, parse_instant, rfc3339
from eventstore.keys import KeyUnreadable
from eventstore.reading import UnreadableEvent

HEADINGS = ("entry", "position", "time", "kind", "amount", "balance", "message", "reason")
NUMBERS = frozenset({"entry", "position", "amount", "balance"})


class Command(BaseCommand):
    help = "Show a user's statement, from the log alone, and whether the read models agree."
    requires_system_checks = ()  # the log, the read models and DATA_KEY are all it needs

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "user", metavar="USER", help="name or id; id:… or name:… where that is not clear"
        )
        parser.add_argument(
            "--at", metavar="TIME", help="show the balance of this time (2026-11-22T10:00:00Z)"
        )
        parser.add_argument("--json", action="store_true", help="write one JSON object")

    def handle(self, *, user: str, at: str | None, **options: Any) -> None:
        if not hasattr(settings, "DATA_KEY"):
            raise CommandError("DATA_KEY is missing: it opens the texts of the log")
        try:
            audited = audit(user, None if at is None else parse_instant(at))
        except (MalformedInstant, InTheFuture) as error:
            raise CommandError(f"--at {at}: {error}") from error
        except (CannotAudit, KeyUnreadable) as error:
            raise CommandError(str(error)) from error
        except UnreadableEvent as error:
            raise CommandError(f"an event of this account cannot be read: {error}") from error
        except DatabaseError as error:
            reason = " ".join(str(error).split())
            raise CommandError(f"the database cannot be used: {reason}") from error
        if options["json"]:
            self.stdout.write(json.dumps(as_object(audited), ensure_ascii=False))
        elif self.stdout.isatty():
            show(audited, Console())
        else:
            self.stdout.writelines(f"{line}\n" for line in as_text(audited))
        if audited.differences:
            sys.exit(1)


def as_object(audited: Audit) -> dict[str, Any]:
    """The whole audit as JSON has it."""
    account = audited.account
    return {
        "user_id": str(account.user_id),
        "username": account.username,
        "registered_at": rfc3339(account.registered_at),
        "at": rfc3339(audited.at),
        "balance": audited.balance,
        "entry": audited.last_line.entry if audited.last_line else None,
        "entries": [
            {
                "entry": line.entry,
                "position": line.position,
                "at": rfc3339(line.at),
                "kind": line.kind,
                "amount": line.amount,
                "balance": line.balance,
                "message_id": None if line.message_id is None else str(line.message_id),
                "reason": line.reason,
            }
            for line in account.lines
        ],
        "read_models": {
            "positions": audited.positions,
            "agree": not audited.differences,
            "differences": audited.differences,
        },
    }


def as_text(audited: Audit) -> Iterator[str]:
    """Lines for other programs: fields between tabs, the same wherever they are written."""
    yield opening(audited)
    yield "\t".join(HEADINGS)
    yield from ("\t".join(fields(line)) for line in audited.account.lines)
    yield from closing(audited)


def show(audited: Audit, console: Console) -> None:
    """The same for a person at a terminal."""
    table = Table()
    for heading in HEADINGS:
        right = heading in NUMBERS
        table.add_column(heading, justify="right" if right else "left", overflow="fold")
    for line in audited.account.lines:
        # As texts: what stands in a reason is no markup.
        table.add_row(*map(Text, fields(line)))
    console.print(Text(opening(audited)))
    console.print(table)
    for text in closing(audited):
        console.print(Text(text, style="red" if text in audited.differences else ""))


def fields(line: Line) -> tuple[str, ...]:
    """A line's fields under the headings."""
    return (
        str(line.entry),
        str(line.position),
        rfc3339(line.at),
        line.kind,
        str(line.amount),
        str(line.balance),
        str(line.message_id or ""),
        printable(line.reason or ""),
    )


def opening(audited: Audit) -> str:
    """Whose account it is."""
    account = audited.account
    return (
        f"{printable(account.username)} ({account.user_id}),"
        f" registered at {rfc3339(account.registered_at)}"
    )


def closing(audited: Audit) -> Iterator[str]:
    """The balance, and what the read models say to all this."""
    last = audited.last_line
    after = f"after entry {last.entry}" if last else "before any entry"
    yield f"balance at {rfc3339(audited.at)}: {audited.balance} tokens, {after}"
    if len(places := set(audited.positions.values())) == 1:
        where = f"position {places.pop()}"
    else:
        each = [f"{position} ({name})" for name, position in audited.positions.items()]
        where = f"positions {' and '.join(each)}"
    verdict = "differ from" if audited.differences else "agree with"
    yield f"the read models are at {where} and {verdict} the log"
    yield from map(printable, audited.differences)


def printable(text: str) -> str:
    """A text on one line, without what would move a terminal's cursor."""
    return "".join(
        each if each.isprintable() else each.encode("unicode_escape").decode() for each in text
    )
