"""`manage.py export_openapi`: keep the OpenAPI document in the repository."""

from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

FILE = Path(__file__).resolve().parents[3] / "openapi.json"


class Command(BaseCommand):
    """Write openapi.json, or check that it is what the service serves."""

    help = "Write openapi.json; with --check only say whether it is up to date."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--check", action="store_true", help="write nothing; exit 1 if it differs"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        from config.docs import openapi_text

        wanted = openapi_text()
        if not options["check"]:
            FILE.write_text(wanted, encoding="utf-8")
        elif not FILE.exists() or FILE.read_text(encoding="utf-8") != wanted:
            raise CommandError(
                "openapi.json is not up to date; run: python manage.py export_openapi"
            )
