"""Write the secret keys that a file lacks."""

from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from config.environment import KEY_NAMES
from config.keyfile import add_missing_keys
from config.settings import environment

COMPOSE_FILE = ".env"


class Command(BaseCommand):
    """`manage.py make_keys [--file PATH]`"""

    help = "Write the missing keys, with mode 0600; those that are there stay as they are."
    requires_system_checks = ()

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--file",
            type=Path,
            default=environment.key_file,
            help="default: %(default)s; .env is for docker compose and gets POSTGRES_PASSWORD too",
        )

    def handle(self, *args: Any, file: Path, **options: Any) -> None:
        names = (*KEY_NAMES, "POSTGRES_PASSWORD") if file.name == COMPOSE_FILE else KEY_NAMES
        try:
            file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            added = add_missing_keys(file, names)
        except (OSError, UnicodeDecodeError) as error:
            raise CommandError(f"{file} cannot be written: {error}") from error
        if added:
            self.stdout.write(f"{file}: wrote {', '.join(added)}")
        else:
            self.stdout.write(f"{file}: nothing was missing")
