"""What breaks, and what must hold all the same. Real processes, really killed."""

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from devstack.processes import DevstackError
from tests.stack.client import User
from tests.stack.services import EmbeddedService, FullService, wait_for

SLOW_WORKER = [sys.executable, "-m", "tests.stack.slow_worker"]


def test_a_killed_embedded_service_keeps_what_it_answered_and_ends_what_it_accepted(
    embedded: EmbeddedService,
) -> None:
    users = [embedded.user(f"crash-{number}") for number in range(4)]
    answered: list[str] = []

    def send_until_it_dies(user: User) -> None:
        for _ in range(40):
            try:
                answer = user.send("hello", prefer="respond-async")
            except Exception:  # noqa: BLE001 (the service is dead: that is the test)
                return
            if answer.status_code in (201, 202):
                answered.append(answer.headers["location"].split("/")[2])

    with ThreadPoolExecutor(4) as clients:
        sending = [clients.submit(send_until_it_dies, user) for user in users]
        wait_for(lambda: len(answered) >= 20, 30, "some answers")
        embedded.process.kill()
        for each in sending:
            each.result()
    embedded.process.start()
    ledger = embedded.at_rest()
    assert set(answered) <= ledger.messages
    assert users[0].send("hello").status_code in (201, 402)


def test_a_long_response_is_generated_once_by_two_workers_and_the_sweeper(tmp_path: Path) -> None:
    calls = tmp_path / "calls"
    calls.touch()
    with FullService(
        tmp_path / "stack", workers=2, commands={"worker": [*SLOW_WORKER, "15", str(calls)]}
    ) as full:
        user = full.user("thinker")
        sent = user.send("hello", prefer="wait=40")
        assert (sent.status_code, sent.json()) == (201, {"response": "slow: hello"})
        assert calls.read_text().splitlines() == [sent.headers["location"].split("/")[2]]
        full.at_rest()


def test_a_lost_data_key_stops_the_start_with_one_clear_line(embedded: EmbeddedService) -> None:
    embedded.user("somebody")
    embedded.process.stop()
    (embedded.process.folder / "keys.env").unlink()
    with pytest.raises(DevstackError, match=r"DATA_KEY in .* does not open"):
        embedded.process.start()


def test_a_port_in_use_is_one_clear_line(embedded: EmbeddedService) -> None:
    with (
        pytest.raises(DevstackError, match="in use"),
        EmbeddedService(embedded.process.folder / "second", PORT=str(embedded.process.port)),
    ):
        pass
