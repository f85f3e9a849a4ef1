"""Whether a client would rather have an event stream than JSON (RFC 9110, section 12.5.1).

Django's own reader of `Accept` looks up whatever charset a header names and takes time that grows
with the square of the header's length.
"""

import re

EVENT_STREAM = "text/event-stream"
#: A longer header makes no sense.
HEADER_CHARACTERS_MAX = 1000


def wants_events(header: str) -> bool:
    """Whether `Accept` names event streams and nothing that serves JSON as well or better.

    Of two that are liked alike the one that is named wins, and JSON if both are.
    """
    if len(header) > HEADER_CHARACTERS_MAX or EVENT_STREAM not in header.lower():
        return False
    liked = _qualities(header)
    events = liked.get(EVENT_STREAM, 0.0)
    named = liked.get("application/json")
    if named is not None:
        return events > named
    other = liked.get("application/*", liked.get("*/*", 0.0))
    return events > 0 and events >= other


def _qualities(header: str) -> dict[str, float]:
    found: dict[str, float] = {}
    for each in header.lower().split(","):
        name, *parameters = (part.strip(" \t") for part in each.split(";"))
        weights = [part[2:] for part in parameters if part.startswith("q=")]
        found.setdefault(name, _weight(weights[0]) if weights else 1.0)
    return found


def _weight(written: str) -> float:
    """A weight between 0 and 1; what is none is no wish."""
    return min(1.0, float(written)) if _NUMBER.fullmatch(written) else 0.0


_NUMBER = re.compile(r"[0-9]{0,9}\.?[0-9]{1,9}|[0-9]{1,9}\.")
