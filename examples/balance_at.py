"""What an account's balance was at a moment, summed up from the exported events alone.

    manage.py export_events | python examples/balance_at.py USER_ID 2026-11-17T12:00:00Z

USER_ID is the account's id, as `GET /users/` lists it. Needs nothing but Python.
"""

import json
import sys
from collections.abc import Iterable
from datetime import UTC, datetime
from uuid import UUID

SIGNS = {"TokensGranted": +1, "TokensDebited": -1, "TokensRefunded": +1}


def balance_at(lines: Iterable[bytes], user_id: UUID, moment: datetime) -> int:
    """Granted - debited + refunded, over the account's events up to and at the moment."""
    balance, opened = 0, False
    for position, line in enumerate(lines, 1):
        try:
            event = json.loads(line)
            if event["position"] != position:
                sys.exit(f"events are missing: {event['position']} comes after {position - 1}")
            if event["type"] == "chatledger.audit.Unreadable":
                sys.exit(f"the event at position {position} cannot be read: no sum can be trusted")
            happened = datetime.fromisoformat(event["time"])
            if event["subject"] != str(user_id) or happened > moment:
                continue
            opened = opened or event["type"] == "chatledger.accounts.UserRegistered"
            sign = SIGNS.get(event["type"].removeprefix("chatledger.accounts."))
            if sign:
                balance += sign * event["data"]["amount"]
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
            sys.exit(f"line {position} is no event of an export: no sum can be trusted")
    if not opened:
        sys.exit("there was no such account then")
    return balance


def as_user_id(text: str) -> UUID:
    """An account's id, in either case."""
    try:
        return UUID(text)
    except ValueError:
        sys.exit(f"{text!r} is no id of an account, such as 6e2f0c1e-3c1b-4a56-9d0e-2f4b8c7d9a10")


def as_moment(text: str) -> datetime:
    """A time that has come: what is still to happen has no sum."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        sys.exit(f"{text!r} is no time, such as 2026-11-17T12:00:00Z")
    if moment.tzinfo is None:
        sys.exit("the time needs a zone, such as the Z in 2026-11-17T12:00:00Z")
    if moment > datetime.now(UTC):
        sys.exit(f"{text} has not come yet")
    return moment


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.stderr.write(__doc__)
        sys.exit(2)
    print(balance_at(sys.stdin.buffer, as_user_id(sys.argv[1]), as_moment(sys.argv[2])))
