"""The bank test's customers: they send, repeat, follow, cancel and delete, and note the answers."""

import random
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import httpx

from devstack.model_scripts import TALE, Script, breaks_off, echoes, hangs, refuses, says
from tests.faults.journal import PAUSE_SECONDS, TRIES_MAX, Entry, Journal
from tests.stack.client import User
from tests.stack.following import Follower

#: What the upstream does, by the first word of a message; all else it echoes.
UPSTREAM: dict[str, Callable[[], Script]] = {
    "slow": lambda: says(*TALE, every_seconds=0.15),
    "refused": lambda: refuses(400),
    "busy": lambda: refuses(429, retry_after=1),
    "broken": lambda: breaks_off(after=3),
    "silent": lambda: hangs(after=2),
}
#: How often a message begins with each of these.
MANNERS = {"plain": 70, "slow": 16, "refused": 4, "busy": 3, "broken": 4, "silent": 3}
#: How often a customer does each of these.
ACTS = {"send": 62, "repeat": 10, "look": 10, "follow": 9, "cancel": 6, "tidy": 3}
REPEATED_AMONG_LAST = 20


def upstream(text: str) -> Script:
    """What the model makes of a message."""
    scripted = UPSTREAM.get(text.partition(" ")[0])
    return scripted() if scripted else echoes(text)


class Customer:
    """One after the other, acts of the accounts that are this customer's own.

    After no answer, or one that promises nothing, it tries the same again, at any of the addresses.
    """

    def __init__(
        self, name: str, accounts: list[User], addresses: list[str], dice: random.Random, grant: int
    ) -> None:
        self.journal = Journal()
        self.done: Counter[str] = Counter()
        self.wrong: list[str] = []
        self._name = name
        self._accounts = accounts
        self._addresses = addresses
        self._dice = dice
        self._grant = grant
        self._count = 0
        self._accepted: list[Entry] = []

    def act(self) -> None:
        """Do one thing, whatever it takes."""
        account = self._dice.choice(self._accounts)
        (act,) = self._dice.choices(list(ACTS), list(ACTS.values()))
        getattr(self, f"_{act}")(account)
        self.done[act] += 1

    @property
    def sends(self) -> int:
        """How many messages were accepted."""
        return len(self._accepted)

    def _send(self, account: User, prefer: str | None = None) -> Entry | None:
        """Send something new; None if it was refused."""
        self._count += 1
        (manner,) = self._dice.choices(list(MANNERS), list(MANNERS.values()))
        prefer = prefer or self._dice.choice([None, "wait=2", "respond-async"])
        key = f"{self._name}-{self._count}"
        entry = self._until_answered(account, f"{manner} {key}", key, prefer)
        if entry.accepted or entry.status == 502:
            self._accepted.append(entry)
            return entry
        if entry.status != 402:
            self.wrong.append(f"{key} was answered {entry.status}")
        return None

    def _repeat(self, _: User) -> None:
        if not self._accepted:
            return
        first = self._dice.choice(self._accepted[-REPEATED_AMONG_LAST:])
        again = self._until_answered(first.user, first.text, first.key, "respond-async")
        # A deleted conversation's message is gone for its user, and is not sent anew.
        if not (again.accepted or again.status in (404, 502)):
            self.wrong.append(f"the repeat of {first.key} was answered {again.status}")

    def _look(self, account: User) -> None:
        tokens = self._ask(account, "GET", "/token/").json()["tokens"]
        if not 0 <= tokens <= self._grant:
            self.wrong.append(f"{account.name} has {tokens} tokens")

    def _follow(self, account: User) -> None:
        """Follow a response, over cuts, and compare it with the one that is stored."""
        if (entry := self._send(account, "respond-async")) is None:
            return
        follower = Follower(account, entry.message_id)
        for _ in range(TRIES_MAX):
            try:
                follower.user = self._somewhere(account)
                if follower.resume() == 200:
                    follower.read()
            except httpx.TransportError:
                follower.hang_up()
            if follower.end is not None:
                break
            time.sleep(PAUSE_SECONDS)
        else:
            self.wrong.append(f"{entry.message_id} never ended its stream")
            return
        stored = self._stored(account, entry.message_id)
        if follower.end.name != stored["status"]:
            self.wrong.append(f"{entry.message_id} streamed {follower.end}, and is {stored}")
        elif follower.end.name != "failed" and follower.text != (stored["response"] or ""):
            self.wrong.append(f"{entry.message_id} streamed {follower.text!r}, and is {stored}")

    def _cancel(self, account: User) -> None:
        if (entry := self._send(account, "respond-async")) is None:
            return
        answer = self._ask(account, "POST", f"/messages/{entry.message_id}/cancel/")
        if answer.status_code != 200:
            self.wrong.append(f"the cancel of {entry.key} was answered {answer.status_code}")

    def _tidy(self, account: User) -> None:
        """Delete the conversation of the latest message, with whatever is pending in it."""
        listed = self._ask(account, "GET", "/conversations/").json()
        if listed:
            answer = self._ask(account, "DELETE", f"/conversations/{listed[0]['id']}/")
            # 404 when an earlier try went through and its answer was lost.
            if answer.status_code not in (204, 404):
                self.wrong.append(f"a deletion was answered {answer.status_code}")

    def _stored(self, account: User, message_id: str) -> dict[str, Any]:
        """The message at its end, which is shown late while no follower is there to show it."""
        for _ in range(TRIES_MAX):
            stored = dict(self._ask(account, "GET", f"/messages/{message_id}/").json())
            if stored["status"] != "pending":
                break
            time.sleep(PAUSE_SECONDS)
        return stored

    def _until_answered(self, account: User, text: str, key: str, prefer: str | None) -> Entry:
        for _ in range(TRIES_MAX):
            entry = self.journal.send(self._somewhere(account), text, key, prefer=prefer)
            if entry.accepted or entry.refused or entry.status == 502:
                return entry
            if entry.status not in (None, 503):
                self.wrong.append(f"{key} was answered {entry.status}")
            time.sleep(PAUSE_SECONDS)
        raise AssertionError(f"no answer to {key} after {TRIES_MAX} tries")

    def _ask(self, account: User, method: str, path: str) -> httpx.Response:
        """Ask until there is an answer that is not about the service itself."""
        for _ in range(TRIES_MAX):
            at = self._somewhere(account)
            try:
                answer = {"GET": at.get, "POST": at.post, "DELETE": at.delete}[method](path)
            except httpx.TransportError:
                answer = None
            if answer is not None and answer.status_code != 503:
                if answer.status_code >= 500:
                    self.wrong.append(f"{method} {path} was answered {answer.status_code}")
                return answer
            time.sleep(PAUSE_SECONDS)
        raise AssertionError(f"no answer to {method} {path} after {TRIES_MAX} tries")

    def _somewhere(self, account: User) -> User:
        return replace(account, url=self._dice.choice(self._addresses))
