"""`manage.py apply_erasures FILE`: after a restore, erase again what was erased since."""

from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from accounts import shell
from eventstore.cause import shell_cause
from privacy.destructions import finish_here
from privacy.restore import ErasuresUnreadable, apply_erasures


class Command(BaseCommand):
    help = "Erase again whatever a file of erasures names; before anybody is served."
    requires_system_checks = ()  # the log is all it needs

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("file", metavar="FILE", type=Path, help="as ERASURES_FILE")

    def handle(self, *, file: Path, **options: Any) -> None:
        with shell.one_line():
            try:
                applied = apply_erasures(file, shell_cause())
            except ErasuresUnreadable as error:
                raise CommandError(f"{error}; nothing was changed") from error
            finish_here()
        self.stdout.write(
            f"{applied.users} users and {applied.conversations} conversations were erased again"
        )
