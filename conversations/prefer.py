"""What a client prefers (RFC 7240): how long to wait for the response, or not at all."""

import re
from dataclasses import dataclass

#: The longest wait that is granted to `wait=N`.
WAIT_SECONDS_MAX = 120
#: A longer header makes no sense, and could be made slow to read.
HEADER_CHARACTERS_MAX = 1000


@dataclass(frozen=True, slots=True)
class Preference:
    """What could be understood of a `Prefer` header; `wait_seconds` is already the granted one."""

    respond_async: bool = False
    wait_seconds: int | None = None

    @property
    def applied(self) -> str:
        """The value of `Preference-Applied`; empty when nothing was understood."""
        wait = "" if self.wait_seconds is None else f"wait={self.wait_seconds}"
        return ", ".join(filter(None, ("respond-async" if self.respond_async else "", wait)))

    def seconds_to_wait(self, default_seconds: float) -> float:
        """Return how long to wait: `wait` counts also beside `respond-async` (RFC 7240 §4.3)."""
        if self.wait_seconds is not None:
            return self.wait_seconds
        return 0 if self.respond_async else default_seconds


NO_PREFERENCE = Preference()


def parse_prefer(header: str | None) -> Preference:
    """Read a `Prefer` header; of a repeated preference the first counts, nonsense is ignored."""
    if not header or len(header) > HEADER_CHARACTERS_MAX:
        return NO_PREFERENCE
    respond_async, wait_seconds = False, None
    seen: set[str] = set()
    for element in _ELEMENT.findall(header):
        match = _PREFERENCE.fullmatch(element)
        if match is None:
            continue
        name = match["name"].lower()
        if name in seen:
            continue
        seen.add(name)
        value = _ESCAPED.sub(r"\1", match["quoted"]) if match["quoted"] else match["value"] or ""
        if name == "respond-async":
            respond_async = not value
        elif name == "wait" and _SECONDS.fullmatch(value):
            wait_seconds = _granted(value)
    return Preference(respond_async, wait_seconds)


def _granted(digits: str) -> int:
    significant = digits.lstrip("0") or "0"
    # A client may write more digits than Python turns into a number.
    return WAIT_SECONDS_MAX if len(significant) > 3 else min(int(significant), WAIT_SECONDS_MAX)


_WORD = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_QUOTED = r'"(?P<quoted>(?:[^"\\]|\\.)*)"'
_ELEMENT = re.compile(r'(?:"(?:[^"\\]|\\.)*"|[^,"])+')
_PREFERENCE = re.compile(
    rf"[ \t]*(?P<name>{_WORD})"
    rf"(?:[ \t]*=[ \t]*(?:{_QUOTED}|(?P<value>{_WORD})?))?"
    r"[ \t]*(?:;.*)?"
)
_ESCAPED = re.compile(r"\\(.)")
_SECONDS = re.compile(r"[0-9]+")
