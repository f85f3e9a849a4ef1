"""What an account's balance was at a moment, summed up from the exported events alone.

    manage.py export_events | python examples/balance_at.py USER_ID 2026-11-17T12:00:00Z

USER_ID is the account's id, as `GET /users/` lists it. Needs nothing but Python.
"""

import json
import sys
from collections.abc import Iterable
from datetime import datetime

SIGNS = {"TokensGranted": +1, "TokensDebited": -1, "TokensRefunded": +1}


def balance_at(lines: Iterable[str], user_id: str, moment: datetime) -> int:
    """Granted - debited + refunded, over the account's events up to and at the moment."""
    balance, opened, position = 0, False, 0
    for line in lines:
        event = json.loads(line)
        if event["position"] != position + 1:
            sys.exit(f"events are missing: {event['position']} comes after {position}")
        position = event["position"]
        if event["type"] == "chatledger.audit.Unreadable":
            sys.exit(f"the event at position {position} cannot be read: no sum can be trusted")
        if event["subject"] != user_id or datetime.fromisoformat(event["time"]) > moment:
            continue
        opened = opened or event["type"] == "chatledger.accounts.UserRegistered"
        sign = SIGNS.get(event["type"].removeprefix("chatledger.accounts."))
        if sign:
            balance += sign * event["data"]["amount"]
    if not opened:
        sys.exit("there was no such account then")
    return balance


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    at = datetime.fromisoformat(sys.argv[2])
    if at.tzinfo is None:
        sys.exit("the time needs a zone, such as the Z in 2026-11-17T12:00:00Z")
    print(balance_at(sys.stdin, sys.argv[1], at))
