"""A newer release takes the place of this one under load, as the operators' page says."""

from itertools import count
from threading import Event, Thread
from typing import Self

import httpx
import pytest

from tests.stack.client import User
from tests.stack.procedures import APPLICATION, Shell, block_under
from tests.stack.services import FullService, wait_for

WAIT_SECONDS = 60
TRIES_MAX = 600
PAUSE_SECONDS = 0.1
SENT_BETWEEN = 5


class Client:
    """Sends one message after the other, each with its key until it is accepted."""

    def __init__(self, user: User) -> None:
        self.accepted: dict[str, str] = {}
        self.answers: list[int] = []
        self._user = user
        self._stop = Event()
        self._thread = Thread(target=self._send_all)

    def _send_all(self) -> None:
        for number in count():
            if self._stop.is_set():
                return
            self._send(f"key-{number}")

    def _send(self, key: str) -> None:
        for _ in range(TRIES_MAX):
            try:
                answer = self._user.send("hello", key=key, prefer="respond-async")
            except httpx.TransportError:
                self._stop.wait(PAUSE_SECONDS)
                continue
            self.answers.append(answer.status_code)
            if answer.is_success:
                self.accepted[key] = answer.headers["location"].split("/")[2]
                return
            self._stop.wait(PAUSE_SECONDS)

    def wait_for_more(self) -> None:
        enough = len(self.accepted) + SENT_BETWEEN
        wait_for(lambda: len(self.accepted) >= enough, WAIT_SECONDS, "more sends")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


@pytest.mark.parametrize("service", ["full"], indirect=True)
def test_a_newer_release_takes_over_and_every_message_is_sent_once(
    service: FullService, tmp_path_factory: pytest.TempPathFactory
) -> None:
    newer = {"DJANGO_SETTINGS_MODULE": "tests.stack.next_release.settings"}
    user = service.user("upgraded")
    service.run("manage.py", "grant_tokens", "upgraded", "1000000", "--reason", "load")
    with Client(user) as client:
        client.wait_for_more()
        shell = Shell(service, tmp_path_factory.mktemp("shell"), **newer)
        assert "next_release.0001_initial" in shell.run(block_under("**Upgrades.**"))
        # The old processes go on with the tables of the new release.
        failed = [status for status in client.answers if status >= 500]
        client.wait_for_more()
        assert failed == []
        for name in APPLICATION:
            process = service.stack.processes[name]
            process.stop()
            process.env |= newer
            service.stack.start(name)
            client.wait_for_more()
    assert set(client.answers) <= {202, 503}
    ledger = service.at_rest()
    assert sorted(ledger.messages_of(user.id)) == sorted(client.accepted.values())
    log = service.stack.processes["followers-1"]
    wait_for(lambda: "history: rebuilt from" in log.log_tail(), WAIT_SECONDS, "the rebuild")
    history = user.get("/conversations/").json()
    assert len(history) == 1
    service.at_rest()
