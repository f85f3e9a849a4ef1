"""`manage.py load_log FILE`: the log that `dump_log` wrote, into a new database of either kind."""

from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import DatabaseError

from audit.dumps.bar import bar
from audit.dumps.errors import DumpRefused
from audit.dumps.files import opened
from audit.dumps.loading import fill_read_models, load
from audit.dumps.wrapping import read_passphrase


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

    def handle(self, *, file: str, passphrase_file: Path | None, **options: Any) -> None:
        try:
            passphrase = read_passphrase(passphrase_file) if passphrase_file else None
            with opened(file) as dump, bar("load") as report:
                counts = load(dump, passphrase=passphrase, report=report)
        except DumpRefused as refused:
            raise CommandError(f"nothing was loaded: {refused}") from refused
        except OSError as error:
            raise CommandError(f"{file} cannot be read: {error}") from error
        except DatabaseError as error:
            reason = " ".join(str(error).split())
            raise CommandError(f"nothing was loaded: {reason}") from error
        try:
            with bar("read models") as report:
                fill_read_models(report)
        except DatabaseError as error:
            reason = " ".join(str(error).split())
            raise CommandError(
                f"the log was loaded, and the followers will fill the read models: {reason}"
            ) from error
        self.stdout.write(
            f"{file}: loaded {counts.events} events, {counts.checkpoints} checkpoints, "
            f"{counts.data_keys} keys, {counts.credentials} logins"
        )
