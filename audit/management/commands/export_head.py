"""`manage.py export_head`: the newest checkpoint, to be kept elsewhere."""

import json
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import DatabaseError

from audit.proofs import DAMAGES
from eventstore.seals.checkpoints import latest


class Command(BaseCommand):
    help = "Print the newest checkpoint as JSON, for `verify --head`; keep it in another place."
    requires_system_checks = ()  # the log is all it needs

    def handle(self, **options: Any) -> None:
        try:
            newest = latest()
            shown = None if newest is None else json.dumps(newest.as_json())
        except DatabaseError as error:
            reason = " ".join(str(error).split())
            raise CommandError(f"the log cannot be read: {reason}") from error
        except DAMAGES as error:
            raise CommandError(
                "the newest checkpoint is not one that this service wrote; see verify --seals"
            ) from error
        if shown is None:
            raise CommandError("no checkpoint yet")
        self.stdout.write(shown)
