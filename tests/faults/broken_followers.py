"""Followers with a bug: the balances of this version cannot add a grant of 13 tokens.

`python -m tests.faults.broken_followers`; everything but the bug is the real thing.
"""

import os
from typing import Any

import django

UNLUCKY = 13
TOPIC = "chatledger.accounts.TokensGranted"
#: What the error says besides: nothing that a client may see.
CANARY = "canary of an error"


def main() -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
    django.setup()
    from django.core.management import call_command

    from projections.balances import Balances

    handlers: dict[str, Any] = Balances.handlers
    add = handlers[TOPIC]

    def superstitious(projection: Any, event: Any) -> None:
        if event.data["amount"] == UNLUCKY:
            raise ArithmeticError(f"{CANARY}: {UNLUCKY} cannot be added")
        add(projection, event)

    handlers[TOPIC] = superstitious
    call_command("run_followers")


if __name__ == "__main__":
    main()
