"""Serve the API and start anew whenever a source file changes; in place of Django's `runserver`."""

from argparse import ArgumentParser
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from config import checks


class Command(BaseCommand):
    """`manage.py runserver [[ADDRESS:]PORT]`"""

    help = "Like serve, and starts anew whenever a source file changes."
    requires_system_checks = ()

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("addrport", nargs="?", default="", help="[address:]port")
        parser.add_argument("--noreload", action="store_true", help="do not watch the files")

    def handle(self, *args: Any, addrport: str, noreload: bool, **options: Any) -> None:
        from config.serving import serve

        host, port = split_address(addrport)
        checks.require_keys(checks.WEB_KEYS)
        checks.require_ready_database()
        serve(host, port, reload=not noreload)


def split_address(addrport: str) -> tuple[str, int]:
    """Return the host and port of `[address:]port`; what is left out comes from the settings."""
    host, _, port = addrport.rpartition(":")
    port = port or str(settings.PORT)
    if not port.isdecimal():
        raise CommandError(f"{addrport!r} is no [address:]port; allowed: 8000 or 127.0.0.1:8000")
    return host.strip("[]") or settings.HOST, int(port)
