"""`manage.py dump_log FILE`: the whole log, byte for byte, as a file that `load_log` takes."""

import sys
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import DatabaseError

from audit.dumps import wrapping
from audit.dumps.bar import bar
from audit.dumps.dumping import dump
from audit.dumps.errors import DumpRefused
from audit.dumps.files import written


class Command(BaseCommand):
    help = "Write the whole log into a file, keys and logins included, while the service goes on."
    requires_system_checks = ()  # the database is all it needs

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("file", metavar="FILE", help="a new file; - is standard output")
        keys = parser.add_mutually_exclusive_group()
        keys.add_argument(
            "--data-key-file",
            type=Path,
            metavar="FILE",
            help="wrap the keys for the DATA_KEY in this file, as var/keys.env, of the target",
        )
        keys.add_argument(
            "--passphrase-file",
            type=Path,
            metavar="FILE",
            help="wrap the keys for the passphrase in this file; otherwise the target has the same"
            " DATA_KEY",
        )

    def handle(
        self,
        *,
        file: str,
        data_key_file: Path | None,
        passphrase_file: Path | None,
        **options: Any,
    ) -> None:
        try:
            if data_key_file:
                how = wrapping.for_data_key(data_key_file)
            elif passphrase_file:
                how = wrapping.for_passphrase(passphrase_file)
            else:
                how = wrapping.as_they_are()
            with written(file) as out, bar("dump") as report:
                counts = dump(out.write, wrapping=how, report=report)
        except DumpRefused as refused:
            raise CommandError(f"nothing was dumped: {refused}") from refused
        except OSError as error:
            raise CommandError(f"{file} cannot be written: {error}") from error
        except DatabaseError as error:
            reason = " ".join(str(error).split())
            raise CommandError(f"the database cannot be used: {reason}") from error
        sys.stderr.write(
            f"{file}: {counts.events} events, {counts.checkpoints} checkpoints, "
            f"{counts.data_keys} keys, {counts.credentials} logins\n"
        )
