"""Serve the API; in the embedded profile with everything else in the same process."""

from argparse import ArgumentParser
from typing import Any

from django.conf import settings
from django.core.management import call_command
from django.core.management.base import BaseCommand

from config import checks


class Command(BaseCommand):
    """`manage.py serve`"""

    help = "Serve the API; with SQLite, with the worker and the followers in the same process."
    requires_system_checks = ()

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--host", default=settings.HOST, help="default: %(default)s")
        parser.add_argument("--port", default=settings.PORT, type=int, help="default: %(default)s")
        parser.add_argument("--migrate", action="store_true", help="migrate the database first")

    def handle(self, *args: Any, host: str, port: int, migrate: bool, **options: Any) -> None:
        from config.serving import serve

        checks.require_keys(checks.WEB_KEYS)
        if migrate:
            call_command("migrate", verbosity=0, interactive=False)
        checks.require_ready_database()
        serve(host, port)
