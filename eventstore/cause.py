"""Who or what caused an event: the part of its metadata that a command brings along."""

import os
import pwd
import re
from dataclasses import dataclass
from uuid import UUID

#: What of a login name the log takes over.
LOGIN_CHARACTERS_MAX = 64


@dataclass(frozen=True)
class Cause:
    """The metadata of everything that one command appends.

    `actor` is `user:<id>`, `staff:<id>`, `shell:<login name>`, `worker`, `sweeper` or `anonymous`;
    `request_id` the id the server made for the request; `causation_id` the event that a component
    reacted to.
    """

    actor: str
    request_id: str = ""
    causation_id: UUID | None = None


def shell_cause() -> Cause:
    """The cause of what a management command does: the user of this machine who runs it.

    The name is the one that belongs to the process, not one that an environment variable claims.
    """
    try:
        name = pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        name = ""  # in a container a user may have a number only
    login = re.sub(r"[^A-Za-z0-9_.-]", "_", name)[:LOGIN_CHARACTERS_MAX]
    return Cause(f"shell:{login or os.getuid()}")
