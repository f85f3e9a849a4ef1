"""`manage.py set_role USER staff|member [--reason TEXT]`: make a user staff, or a member again."""

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from accounts import schemas, shell, staff_commands
from accounts.domain import ROLES
from accounts.grants import REASON_CHARACTERS_MAX
from eventstore.cause import shell_cause


class Command(BaseCommand):
    help = "Make a user staff, or a member again; it counts at their next request."
    requires_system_checks = ()  # the log is all it needs

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "user", metavar="USER", help="name or id; id:… or name:… where that is not clear"
        )
        parser.add_argument("role", metavar="ROLE", help=" or ".join(ROLES))
        parser.add_argument("--reason", help=f"1 to {REASON_CHARACTERS_MAX} characters")

    def handle(self, *, user: str, role: str, reason: str | None, **options: Any) -> None:
        if role not in ROLES:
            raise CommandError(f"there is no role {role!a}; there are {' and '.join(ROLES)}")
        body = shell.checked(schemas.Because, reason=reason)
        with shell.one_line():
            user_id = shell.user_called(user)
            command = staff_commands.SetRole(user_id, role, body.reason)
            done = staff_commands.set_role(command, shell_cause())
        was = "is now" if done.changed else "was already"
        self.stdout.write(f"{shell.shown(user, user_id)} {was} {role}")
