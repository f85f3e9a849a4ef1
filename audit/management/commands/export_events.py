"""`manage.py export_events [--after POSITION]`: the log as CloudEvents, without personal text."""

import io
import os
import sys
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import DatabaseError

from audit.cloudevents import encode, encode_unreadable
from eventstore.reading import max_position, read_each


class Command(BaseCommand):
    help = (
        "Write the log to stdout in the order of its positions, up to where it ends now: "
        "CloudEvents 1.0, one JSON line each, without personal text. A row that is no event is "
        "named on stderr, and the command exits 1 after the rest."
    )
    requires_system_checks = ()  # the log is all it needs

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--after", type=int, default=0, metavar="POSITION", help="begin behind this position"
        )

    def handle(self, *, after: int, **options: Any) -> None:
        if after < 0:
            raise CommandError("--after is a position: 0 or more")
        try:
            unreadable = self._export(after)
        except BrokenPipeError:
            # The reader has seen enough. What is still buffered has nowhere to go.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(1)
        except DatabaseError as error:
            raise CommandError(f"the log cannot be read: {error}".strip()) from error
        if unreadable:
            raise CommandError(
                f"{unreadable} of the rows are no events; manage.py verify --seals says more"
            )

    def _export(self, after: int) -> int:
        """Write what lies behind `after`; how many rows were no events."""
        # One encoding, whatever the locale says.
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(encoding="utf-8")
        unreadable, end = 0, max_position()
        while after < end and (events := read_each(after, upto=end)):
            lines = []
            for event in events:
                line = encode(event)
                if line is None:
                    unreadable += 1
                    self.stderr.write(f"position {event.position} is unreadable: no event's bytes")
                    line = encode_unreadable(event.position)
                lines.append(line.decode())
            self.stdout.write("\n".join(lines))
            after = events[-1].position
        self.stdout.flush()
        return unreadable
