"""Six processes that start together on an empty database."""

from contextlib import ExitStack
from pathlib import Path

import httpx

from devstack.application import (
    COMMANDS,
    KEYS,
    PROJECT,
    clean_environment,
    is_ready,
    make_keys,
)
from devstack.processes import LOOPBACK, Child, free_port, wait_until_ready
from devstack.services import Postgres, Redis
from tests.faults.counts import count
from tests.stack.client import OPTIONS, PASSWORD, register

PROCESSES = 6
ROUNDS = count(short=1, full=5)
START_SECONDS_MAX = 120.0


def test_six_processes_that_start_together_on_an_empty_database_all_come_up(
    tmp_path: Path,
) -> None:
    keys = {name: value for name, value in make_keys(tmp_path).items() if name in KEYS["web"]}
    with Postgres(tmp_path) as postgres, Redis(tmp_path) as redis:
        postgres.start()
        redis.start()
        for number in range(ROUNDS):
            addresses = {
                "DATABASE_URL": postgres.create_database(f"empty_{number}"),
                "REDIS_URL": redis.url,
                "VAR_DIR": str(tmp_path),
            }
            start_together(tmp_path, clean_environment() | keys | addresses)


def start_together(folder: Path, env: dict[str, str]) -> None:
    ports = [free_port() for _ in range(PROCESSES)]
    children = [
        Child(
            f"web-{port}",
            [*COMMANDS["web"], "--migrate"],
            env | {"HOST": LOOPBACK, "PORT": str(port)},
            folder / f"web-{port}.log",
            PROJECT,
        )
        for port in ports
    ]
    with ExitStack() as exits:
        for child in children:
            exits.callback(child.kill)
            child.start()
        wait_until_ready(
            children,
            lambda: all(map(is_ready, ports)),
            timeout_seconds=START_SECONDS_MAX,
            what="one of six",
        )
        urls = [f"http://{LOOPBACK}:{port}" for port in ports]
        users = [register(url, f"first-of-{number}") for number, url in enumerate(urls)]
        # What one of them has written all of them know.
        for url in urls:
            assert log_in(url, users[0].name) == 200


def log_in(url: str, name: str) -> int:
    credentials = {"username": name, "password": PASSWORD}
    return httpx.post(f"{url}/users/login/", json=credentials, **OPTIONS).status_code
