"""What clients sent and were answered, kept where no process under test can lose it."""

import threading
import time
from dataclasses import dataclass
from uuid import UUID, uuid5

import httpx

from tests.stack.client import User
from tests.stack.ledger_check import Ledger

#: How often a client tries again, and how long after.
TRIES_MAX = 600
PAUSE_SECONDS = 0.1


@dataclass(frozen=True)
class Entry:
    """One request to send; `status` is None when no answer came."""

    user: User
    key: str
    text: str
    status: int | None

    @property
    def message_id(self) -> str:
        """The id that this user's key stands for, whoever asks and whenever."""
        return str(uuid5(UUID(self.user.id), f"message:{self.key}"))

    @property
    def accepted(self) -> bool:
        return self.status is not None and 200 <= self.status < 300

    @property
    def refused(self) -> bool:
        """Whether the answer says that nothing was written."""
        return self.status is not None and 400 <= self.status < 500


class Journal:
    """Every send of some users, noted by the client that made it."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self._lock = threading.Lock()

    def send(self, user: User, text: str, key: str, *, prefer: str | None = None) -> Entry:
        """Send under a key, and note what came of it."""
        try:
            answer = user.send(text, key=key, prefer=prefer)
        except httpx.TransportError:
            return self._note(Entry(user, key, text, None))
        entry = self._note(Entry(user, key, text, answer.status_code))
        if entry.accepted:
            assert answer.headers["location"] == f"/messages/{entry.message_id}/"
        return entry

    def send_again(self, user: User, text: str, key: str, *, prefer: str | None = None) -> Entry:
        """Send the same until somebody says yes or no."""
        for _ in range(TRIES_MAX):
            entry = self.send(user, text, key, prefer=prefer)
            if entry.accepted or entry.refused:
                return entry
            time.sleep(PAUSE_SECONDS)
        raise AssertionError(f"no answer to {key} after {TRIES_MAX} tries")

    @property
    def texts(self) -> dict[str, str]:
        """What each message has to say."""
        return {entry.message_id: entry.text for entry in self.entries}

    def violations(self, ledger: Ledger) -> list[str]:
        """5: what was answered is in the log, and what was refused is not. 6: once a key."""
        found = []
        senders = {line.stream: line.data["user_id"] for line in ledger.of("MessageSent")}
        # Another request with the same key may have got through.
        doubtful = {entry.message_id for entry in self.entries if not entry.refused}
        for entry in self.entries:
            told = f"{entry.message_id} ({entry.user.name}, key {entry.key}), {entry.status},"
            logged = senders.get(entry.message_id) == entry.user.id
            if entry.accepted and not logged:
                found.append(f"5: {told} is not in the log")
            if entry.refused and logged and entry.message_id not in doubtful:
                found.append(f"5: {told} is in the log")
        users = {entry.user.id for entry in self.entries}
        strangers = [m for m, by in senders.items() if by in users and m not in doubtful]
        return found + [f"6: nobody sent {each}, which is in the log" for each in strangers]

    def _note(self, entry: Entry) -> Entry:
        with self._lock:
            self.entries.append(entry)
        return entry
