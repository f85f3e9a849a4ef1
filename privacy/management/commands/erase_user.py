"""`manage.py erase_user USER`: forget a user for ever."""

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand

from accounts import shell
from eventstore.cause import shell_cause
from privacy.destructions import finish_here
from privacy.erasure import EraseUser, erase_user


class Command(BaseCommand):
    help = "Forget a user for ever: the account, the conversations, and all text in them."
    requires_system_checks = ()  # the log is all it needs

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "user", metavar="USER", help="name or id; id:… or name:… where that is not clear"
        )

    def handle(self, *, user: str, **options: Any) -> None:
        with shell.one_line():
            user_id = shell.user_called(user)
            position = erase_user(EraseUser(user_id), shell_cause())
            finish_here()
        self.stdout.write(f"{shell.shown(user, user_id)} is erased, at position {position}")
