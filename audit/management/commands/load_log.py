"""`manage.py load_log FILE`: the log that `dump_log` wrote, into a new database of either kind."""

from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from django.db import DatabaseError

from audit import summaries
from audit.dumps.bar import bar
from audit.dumps.errors import DumpRefused
from audit.dumps.files import opened
from audit.dumps.loading import fill_read_models, load
from audit.dumps.wrapping import read_passphrase
from audit.heads import UnreadableHead, read_head
from eventstore.cause import shell_cause
from eventstore.database import StoreUnavailable
from privacy.destructions import finish_here
from privacy.restore import ErasuresUnreadable, apply_erasures, check_erasures


class Command(BaseCommand):
    help = (
        "Load a dump into an empty log, all of it or nothing, and show it. Stop the service first."
    )
    requires_system_checks = ()  # the database is all it needs

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("file", metavar="FILE", help="the dump; - is standard input")
        parser.add_argument(
            "--passphrase-file",
            type=Path,
            metavar="FILE",
            help="the passphrase that the dump was made with",
        )
        parser.add_argument(
            "--head",
            type=Path,
            metavar="FILE",
            help="a checkpoint that was kept elsewhere (export_head, GET /audit/checkpoints/): the"
            " dump's log must hold it",
        )
        parser.add_argument(
            "--erasures",
            type=Path,
            metavar="FILE",
            help="erase again what this file names, the latest ERASURES_FILE of where the dump was"
            " made; by default the one here, if there is one",
        )

    def handle(
        self,
        *,
        file: str,
        passphrase_file: Path | None,
        head: Path | None,
        erasures: Path | None,
        **options: Any,
    ) -> None:
        if erasures is None and settings.ERASURES_FILE.exists():
            erasures = settings.ERASURES_FILE
        try:
            if erasures:
                check_erasures(erasures)
            passphrase = read_passphrase(passphrase_file) if passphrase_file else None
            kept = read_head(head) if head else None
            with opened(file) as dump, bar("load") as report:
                loaded = load(
                    dump, passphrase=passphrase, report=report, kept=kept, erasures=erasures
                )
        except (DumpRefused, ErasuresUnreadable, UnreadableHead) as refused:
            raise CommandError(f"nothing was loaded: {refused}") from refused
        except OSError as error:
            raise CommandError(f"{file} cannot be read: {error}") from error
        except DatabaseError as error:
            raise CommandError(f"nothing was loaded: {_one_line(error)}") from error
        counts = loaded.counts
        self.stdout.write(
            f"{file}: loaded {counts.events} events, {counts.checkpoints} checkpoints, "
            f"{counts.data_keys} keys, {counts.credentials} logins"
        )
        for line in summaries.of_seals(loaded.seals):
            self.stdout.write(line)
        try:
            self._finish(erasures)
        except (DatabaseError, StoreUnavailable, OSError) as error:
            left = f"run apply_erasures {erasures} before anybody is served" if erasures else ""
            raise CommandError(
                f"the log is there, what follows is not: {_one_line(error)}; "
                + (left or "the followers will fill the read models")
            ) from error

    def _finish(self, erasures: Path | None) -> None:
        """Show the log; erase what was erased since; show that too."""
        with bar("read models") as report:
            # An erasure asks them what is pending.
            fill_read_models(report)
        if erasures:
            applied = apply_erasures(erasures, shell_cause())
            finish_here()
            fill_read_models(lambda done, total: None)
            self.stdout.write(
                f"{erasures}: {applied.users} users and {applied.conversations} conversations "
                "were erased again"
            )


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
