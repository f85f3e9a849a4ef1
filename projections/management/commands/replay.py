"""`manage.py replay [NAME …]`: rebuild read models from the log, beside the live ones."""

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import DatabaseError
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from projections.generations import Projections
from projections.rebuild import Rebuild, RebuildStopped
from projections.registry import PROJECTIONS

#: What a shell says of a command that Ctrl-C has ended.
INTERRUPTED = 130


class Command(BaseCommand):
    help = "Rebuild read models from the log beside the live ones, then swap; sends go on."
    requires_system_checks = ()  # the log and the read models are all it needs

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "names",
            nargs="*",
            metavar="NAME",
            help=f"one of {', '.join(PROJECTIONS)}; without a name, all of them",
        )

    def handle(self, *, names: list[str], **options: Any) -> None:
        wanted = sorted(set(names)) or list(PROJECTIONS)
        if unknown := [name for name in wanted if name not in PROJECTIONS]:
            raise CommandError(
                f"there is no read model {unknown[0]!r}; there are {', '.join(PROJECTIONS)}"
            )
        try:
            done = _replayed({name: PROJECTIONS[name] for name in wanted})
        except (RebuildStopped, DatabaseError) as error:
            raise CommandError(f"the replay stopped: {error}") from error
        except KeyboardInterrupt:
            raise CommandError(
                f"interrupted; `manage.py replay {' '.join(names)}".rstrip() + "` goes on there",
                returncode=INTERRUPTED,
            ) from None
        self.stdout.write(f"{', '.join(wanted)}: rebuilt from {done} events")


def _replayed(projections: Projections) -> int:
    """Rebuild and show how far it is; the events that the new rows come from."""
    bar = Progress(
        TextColumn("replay"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("events"),
        _Rate(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    )
    rebuilding = Rebuild(projections, lambda done, end: bar.update(task, completed=done, total=end))
    # What an interrupted replay has done counts as done, but not as done in no time.
    begun_at = rebuilding.position
    task = bar.add_task("replay", total=None, completed=begun_at, begun_at=begun_at)
    with bar:
        if begun_at:
            bar.console.print(f"going on at event {begun_at + 1}")
        rebuilding.run()
        bar.update(task, completed=rebuilding.position, total=rebuilding.position)
    return rebuilding.position


class _Rate(ProgressColumn):
    """Events a second since this replay began, or went on."""

    def render(self, task: Task) -> Text:
        done = task.completed - task.fields["begun_at"]
        return Text(f"{done / task.elapsed:,.0f}/s" if task.elapsed else "")
