"""`manage.py grant_tokens USER AMOUNT --reason TEXT [--key KEY]`: give a user tokens."""

import re
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from accounts import schemas, shell, staff_commands
from accounts.grants import GRANT_TOKENS_MAX, REASON_CHARACTERS_MAX
from accounts.idempotency import InvalidIdempotencyKey, checked_key
from eventstore.cause import shell_cause
from projections.progress import wait_until_shown


class Command(BaseCommand):
    help = "Give a user tokens; the log keeps who did it and why."
    requires_system_checks = ()  # the log is all it needs

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "user", metavar="USER", help="name or id; id:… or name:… where that is not clear"
        )
        parser.add_argument("amount", metavar="AMOUNT", help=f"1 to {GRANT_TOKENS_MAX}")
        parser.add_argument(
            "--reason", required=True, help=f"1 to {REASON_CHARACTERS_MAX} characters"
        )
        parser.add_argument(
            "--key", help="with it the grant is made once, however often the command is run"
        )

    def handle(
        self, *, user: str, amount: str, reason: str, key: str | None, **options: Any
    ) -> None:
        number = int(amount) if re.fullmatch(r"-?[0-9]{1,20}", amount) else amount
        body = shell.checked(schemas.GrantTokens, amount=number, reason=reason)
        try:
            grant_id = staff_commands.grant_id_for(
                staff_commands.SHELL, None if key is None else checked_key(key)
            )
        except InvalidIdempotencyKey as error:
            raise CommandError("--key: 1 to 255 visible ASCII characters") from error
        with shell.one_line():
            user_id = shell.user_called(user)
            command = staff_commands.GrantTokens(grant_id, user_id, body.amount, body.reason)
            try:
                granted = staff_commands.grant_tokens(command, shell_cause())
            except staff_commands.GrantKeyReused as error:
                raise CommandError(
                    "--key: this key was used for a grant to another user, of another amount or "
                    "for another reason; nothing was granted"
                ) from error
            wait_until_shown(granted.position, *staff_commands.SHOWING_GRANT)
        done = "had been granted before" if granted.repeated else "granted"
        self.stdout.write(
            f"{shell.shown(user, user_id)}: {body.amount} tokens {done}, "
            f"the balance is {granted.balance}"
        )
