"""The application's own processes: their commands, their environments, and when they are ready."""

import http.client
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Self

from config.keyfile import add_missing_keys, read_keys
from devstack.processes import (
    LOOPBACK,
    Child,
    DevstackError,
    free_metrics_ports,
    free_port,
    wait_until_ready,
)

PROJECT = Path(__file__).resolve().parent.parent
READY_TIMEOUT_SECONDS = 60.0
ONCE_TIMEOUT_SECONDS = 120.0
STOP_TIMEOUT_SECONDS = 5.0

COMMANDS = {
    "web": [sys.executable, "manage.py", "serve"],
    "worker": [sys.executable, "manage.py", "run_worker"],
    "followers": [sys.executable, "manage.py", "run_followers"],
    "migrate": [sys.executable, "manage.py", "migrate"],
}
# A process that does not hold a key cannot give it away.
KEYS = {
    "web": ("SECRET_KEY", "JWT_SIGNING_KEY", "DATA_KEY"),
    "worker": ("SECRET_KEY", "DATA_KEY"),
    "followers": ("SECRET_KEY", "DATA_KEY", "SEAL_KEY"),
    "migrate": (),
}
# For tests and benchmarks, which do more in a minute than a person may in an hour.
UNLIMITED = {"RATE_LIMIT_LOGIN": "off", "RATE_LIMIT_REGISTER": "off", "RATE_LIMIT_SEND": "off"}
INHERITED = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "SYSTEMROOT")


def clean_environment() -> dict[str, str]:
    """What a process needs of ours to run at all; none of our settings."""
    inherited = {name: os.environ[name] for name in INHERITED if name in os.environ}
    return inherited | {"PYTHONUNBUFFERED": "1"}


def make_keys(folder: Path) -> dict[str, str]:
    """The keys of this folder; those that it lacks are made."""
    file = folder / "keys.env"
    add_missing_keys(file, sorted({name for names in KEYS.values() for name in names}))
    return read_keys(file)


def run_once(name: str, command: list[str], env: Mapping[str, str], folder: Path) -> None:
    """Run a command to its end; fail with its last line when it does."""
    child = Child(name, command, dict(env), folder / f"{name}.log", PROJECT)
    child.start()
    try:
        if not child.wait(ONCE_TIMEOUT_SECONDS):
            raise DevstackError(f"{name} takes longer than {ONCE_TIMEOUT_SECONDS:.0f} s")
    finally:
        child.kill()
    if child.exit_code:
        raise DevstackError(f"{name} failed ({child.how_it_ended}): {child.last_line()}")


def is_ready(port: int) -> bool:
    """Whether the web process on this port says that it can serve."""
    connection = http.client.HTTPConnection(LOOPBACK, port, timeout=5)
    try:
        connection.request("GET", "/readyz/", headers={"Host": "localhost"})
        return connection.getresponse().status == http.HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def wait_until_serving(children: list[Child], port: int) -> None:
    """Wait until this port answers `/readyz/` with 200, or one of the children has ended."""
    wait_until_ready(
        children,
        lambda: is_ready(port),
        timeout_seconds=READY_TIMEOUT_SECONDS,
        what=f"{LOOPBACK}:{port}",
    )


class Embedded:
    """The embedded profile: one `manage.py serve` on SQLite, all that it keeps in the folder."""

    def __init__(
        self, folder: Path, port: int | None = None, extra_env: Mapping[str, str] | None = None
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder.resolve()
        self.port = port or free_port()
        metrics_port = next(free_metrics_ports())
        env = {"VAR_DIR": str(self.folder), "HOST": LOOPBACK, "PORT": str(self.port)}
        env |= {"METRICS_HOST": LOOPBACK, "METRICS_PORT": str(metrics_port)}
        self.child = Child(
            name="serve",
            command=[*COMMANDS["web"], "--migrate"],
            env=clean_environment() | env | dict(extra_env or {}),
            log_file=self.folder / "serve.log",
            cwd=PROJECT,
            address=f"{LOOPBACK}:{self.port}",
            metrics=f"{LOOPBACK}:{metrics_port}",
        )

    @property
    def url(self) -> str:
        return f"http://{LOOPBACK}:{self.port}"

    @property
    def pid(self) -> int:
        return self.child.pid

    def start(self) -> None:
        """Migrate, serve, and wait until it answers."""
        self.child.start()
        try:
            wait_until_serving([self.child], self.port)
        except BaseException:
            self.child.kill()
            raise

    def kill(self) -> None:
        """End it as `kill -9` does."""
        self.child.kill()

    def stop(self) -> None:
        """Stop it in order."""
        self.child.stop(STOP_TIMEOUT_SECONDS)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
