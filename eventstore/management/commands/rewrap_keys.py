"""`manage.py rewrap_keys`: the second half of rotating `DATA_KEY`."""

from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from django.db import DatabaseError

from eventstore.cause import shell_cause
from eventstore.database import StoreUnavailable
from eventstore.keys import KeyUnreadable
from eventstore.rotation import rewrap_keys


class Command(BaseCommand):
    help = "Wrap by DATA_KEY all keys that DATA_KEY_PREVIOUS wraps, while the service goes on."
    requires_system_checks = ()  # the database is all it needs

    def handle(self, **options: Any) -> None:
        for name in ("DATA_KEY", "DATA_KEY_PREVIOUS"):
            if not getattr(settings, name, None):
                raise CommandError(
                    f"{name} is missing; DATA_KEY is the new key, DATA_KEY_PREVIOUS the one before"
                )
        try:
            count = rewrap_keys(shell_cause())
        except KeyUnreadable as error:
            raise CommandError(f"{error}; what was rewrapped before it stays so") from error
        except (DatabaseError, StoreUnavailable) as error:
            reason = " ".join(str(error).split())
            raise CommandError(f"the database cannot be used: {reason}; run it again") from error
        self.stdout.write(f"{count} keys rewrapped: DATA_KEY_PREVIOUS is not needed any more")
