"""`manage.py verify`: recompute the seals and all that follows from the log; name what differs."""

import sys
from argparse import ArgumentParser
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import DatabaseError
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)

from audit import summaries
from audit.credentials import compare_credentials
from audit.heads import UnreadableHead, read_head
from audit.snapshots import compare_snapshots
from audit.summaries import differences
from eventstore.reading import max_position
from eventstore.seals.verification import NoSuchCheckpoint, Report, verify_seals
from projections.comparison import compare_with_fresh_replay
from projections.rebuild import RebuildStopped

#: A log as long as this takes seconds: a bar shows how far it is.
BAR_EVENTS_MIN = 50_000

#: What is compared with the log beside its seals: each gives a line for each difference.
_COMPARED: Mapping[str, Callable[[], list[str]]] = {
    "credentials": compare_credentials,
    "snapshots": compare_snapshots,
    "read models": compare_with_fresh_replay,
}


class Command(BaseCommand):
    help = (
        "Recompute every seal, and credentials, snapshots and read models from the log, and name"
        " each difference; exit status 1 on any."
    )
    requires_system_checks = ()  # the log and the read models are all it needs

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--seals", action="store_true", help="the seals only")
        parser.add_argument(
            "--since",
            type=int,
            metavar="CHECKPOINT",
            default=1,
            help="begin with this checkpoint, and believe the one before",
        )
        parser.add_argument(
            "--head",
            type=Path,
            metavar="FILE",
            help="a checkpoint that was kept elsewhere (export_head, GET /audit/checkpoints/)",
        )

    def handle(self, *, seals: bool, since: int, head: Path | None, **options: Any) -> None:
        try:
            kept = read_head(head) if head else None
            with _bar() as report:
                findings = verify_seals(since=since, head=kept, report=report)
            found = {} if seals else {name: compare() for name, compare in _COMPARED.items()}
        except (UnreadableHead, NoSuchCheckpoint) as error:
            raise CommandError(str(error), returncode=2) from error
        except (RebuildStopped, DatabaseError) as error:
            reason = " ".join(str(error).split())
            raise CommandError(f"the verification stopped: {reason}") from error
        named = list(chain(findings.differences, *found.values()))
        summary = summaries.of_seals(findings, since=since)
        summary += [f"{name}: {differences(len(lines))}" for name, lines in found.items()]
        for line in (*named, *summary):
            self.stdout.write(_one_line(line))
        if named:
            sys.exit(1)


def _one_line(text: str) -> str:
    """The text without anything that a terminal would obey."""
    return "".join(each if each.isprintable() else repr(each)[1:-1] for each in text)


@contextmanager
def _bar() -> Iterator[Report | None]:
    """A bar on standard error, if somebody waits there and the log is long."""
    console = Console(stderr=True)
    if not console.is_terminal or max_position() < BAR_EVENTS_MIN:
        yield None
        return
    with Progress(
        TextColumn("verify"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("events"),
        TimeRemainingColumn(),
        console=console,
        transient=True,
    ) as bar:
        task = bar.add_task("verify", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
