"""`manage.py retry_parked`: apply the events that projections could not handle, in order."""

import sys
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import DatabaseError

from projections.parked_events import parked_streams
from projections.parking import retry
from projections.registry import PROJECTIONS


class Command(BaseCommand):
    help = "Apply parked events in the order of their streams; exit 1 if some remain."
    requires_system_checks = ()  # the log and the read models are all it needs

    def handle(self, **options: Any) -> None:
        try:
            retried = [
                retry(projection, stream_id)
                for name, projection in PROJECTIONS.items()
                for stream_id in parked_streams(name)
            ]
        except DatabaseError as error:
            raise CommandError(f"the database cannot be used: {error}".strip()) from error
        for stream in retried:
            line = f"{stream.projection}: stream {stream.stream_id}: {stream.applied} applied"
            if stream.remaining:
                line += f", {stream.remaining} still parked: {stream.error}"
            self.stdout.write(line)
        if not retried:
            self.stdout.write("nothing is parked")
        if any(stream.remaining for stream in retried):
            sys.exit(1)
