"""`manage.py verify`: recompute the seals and the read models, and name what differs."""

import sys
from argparse import ArgumentParser
from collections.abc import Iterator
from contextlib import contextmanager
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

from audit.heads import UnreadableHead, read_head
from eventstore.reading import max_position
from eventstore.seals.verification import Findings, NoSuchCheckpoint, Report, verify_seals
from projections.comparison import compare_with_fresh_replay
from projections.rebuild import RebuildStopped

#: A log as long as this takes seconds: a bar shows how far it is.
BAR_EVENTS_MIN = 50_000


class Command(BaseCommand):
    help = (
        "Recompute every seal and every read model from the log and name each difference;"
        " exit status 1 on any."
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
            differences = list(findings.differences)
            read_models = [] if seals else compare_with_fresh_replay()
        except (UnreadableHead, NoSuchCheckpoint) as error:
            raise CommandError(str(error), returncode=2) from error
        except (RebuildStopped, DatabaseError) as error:
            reason = " ".join(str(error).split())
            raise CommandError(f"the verification stopped: {reason}") from error
        for line in (*differences, *read_models):
            self.stdout.write(_one_line(line))
        self._sum_up(findings, since)
        if not seals:
            self.stdout.write(f"read models: {_differences(len(read_models))}")
        if differences or read_models:
            sys.exit(1)

    def _sum_up(self, findings: Findings, since: int) -> None:
        from_there = f" from number {since} on" if since > 1 else ""
        keys = ", ".join(findings.key_ids) or "none"
        self.stdout.write(
            f"seals: {_differences(len(findings.differences))};"
            f" {findings.checkpoints:,} checkpoints{from_there} over {findings.events:,} events,"
            f" signed by {keys}"
        )
        if findings.newest:
            number, digest = findings.newest
            self.stdout.write(f"head: checkpoint {number}, {digest.hex()}")
        else:
            self.stdout.write("head: no checkpoint yet")
        self.stdout.write(f"not sealed yet: {findings.unsealed:,} events")


def _differences(count: int) -> str:
    return "no difference" if count == 0 else f"{count:,} difference{'s' if count > 1 else ''}"


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
