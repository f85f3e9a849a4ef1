"""An event that a projection cannot handle: parked with its stream, reported; `retry_parked` heals.

The followers are started with a bug, and then without. What is parked how in one process:
tests/projections/test_parking.py.
"""

import sys
from pathlib import Path

import httpx

from devstack.application import COMMANDS
from tests.faults.broken_followers import CANARY, UNLUCKY
from tests.faults.checker import check
from tests.stack.client import OPTIONS
from tests.stack.services import FullService, wait_for

SENDS = 5
SHOWN_SECONDS = 20.0


def test_an_event_that_cannot_be_handled_is_parked_and_reported_and_the_rest_goes_on(
    tmp_path: Path,
) -> None:
    broken = [sys.executable, "-m", "tests.faults.broken_followers"]
    with FullService(tmp_path / "stack", commands={"followers": broken}) as full:
        alice, bob = full.user("alice"), full.user("bob")
        grant = ("grant_tokens", "alice", str(UNLUCKY), "--reason", "luck")
        assert full.run("manage.py", *grant).returncode == 0
        wait_for(lambda: alice.get("/token/").status_code == 503, SHOWN_SECONDS, "the parking")

        # It is told, and why, but nothing of what the error quotes.
        problem = alice.get("/token/")
        assert problem.headers["content-type"] == "application/problem+json"
        assert problem.json()["type"] == "/problems/read-model-parked/"
        assert alice.id in problem.json()["detail"]
        assert "(ArithmeticError)" in problem.json()["detail"]
        assert CANARY not in problem.text
        ready = httpx.get(f"{full.url}/readyz/", **OPTIONS)
        assert ready.status_code == 200
        assert ready.json()["degraded"] == ["read models: 1 parked events"]
        told = [line for line in log(full).splitlines() if "is parked with its stream" in line]
        assert len(told) == 1
        assert alice.id in told[0]

        # The rest goes on: she can send, and everything of everybody else is shown.
        for _ in range(SENDS):
            assert alice.send("hello").status_code == 201
            assert bob.send("hello").status_code == 201
        assert bob.tokens() == 4000 - 100 * SENDS
        assert len(alice.get("/token/statement/").json()) == 2 + SENDS
        assert alice.get("/token/").status_code == 503

        # A retry by the code that has the bug would park it again: first the mended program.
        followers = full.stack.processes["followers-1"]
        followers.stop()
        followers.command = COMMANDS["followers"]
        full.stack.start("followers-1")
        healed = full.run("manage.py", "retry_parked")
        applied = f"balances: stream {alice.id}: {1 + SENDS} applied\n"
        assert (healed.stdout, healed.returncode) == (applied, 0), healed.stderr
        assert alice.tokens() == 4000 + UNLUCKY - 100 * SENDS
        assert httpx.get(f"{full.url}/readyz/", **OPTIONS).json()["degraded"] == []
        assert alice.send("hello").status_code == 201
        check(full)


def log(full: FullService) -> str:
    return full.stack.processes["followers-1"].log_file.read_text()
