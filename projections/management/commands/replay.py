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

from projections.rebuild import RebuildStopped, rebuild
from projections.registry import PROJECTIONS


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
        with Progress(
            TextColumn("replay"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("events"),
            _Rate(),
            TimeRemainingColumn(),
            console=Console(stderr=True),
        ) as bar:
            task = bar.add_task("replay", total=None)
            try:
                rebuild(
                    {name: PROJECTIONS[name] for name in wanted},
                    lambda done, total: bar.update(task, completed=done, total=total),
                )
            except (RebuildStopped, DatabaseError) as error:
                raise CommandError(f"the replay stopped: {error}") from error
        done = int(bar.tasks[0].completed)
        self.stdout.write(f"{', '.join(wanted)}: rebuilt from {done} events")


class _Rate(ProgressColumn):
    """Events a second since the start."""

    def render(self, task: Task) -> Text:
        return Text(f"{task.completed / task.elapsed:,.0f}/s" if task.elapsed else "")
