"""The operators' page as a shell runs it: its blocks of commands, beside a service."""

import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from devstack import postgres_install
from devstack.application import PROJECT
from tests.stack.client import User
from tests.stack.services import EmbeddedService, FullService, Service

PAGE = PROJECT / "docs" / "operators.md"
RUN_SECONDS = 300
SENDS_MAX = 5_000
APPLICATION = ("web-1", "worker-1", "followers-1")
#: For machines without SQLite's shell: the one command of it that the page uses.
SQLITE3 = """#!{python}
import re, sqlite3, sys
database, command = sys.argv[1:]
(copy,) = re.fullmatch(r"\\.backup '(.*)'", command).groups()
sqlite3.connect(database).backup(sqlite3.connect(copy))
"""


def block(holds: str) -> str:
    """The one block of commands on the page that holds this text."""
    (found,) = [each for each in _blocks() if holds in each]
    return found


def block_under(words: str) -> str:
    """The first block of commands behind these words."""
    page = PAGE.read_text()
    return _blocks(page[page.index(words) :])[0]


def _blocks(text: str | None = None) -> list[str]:
    return re.findall(r"(?m)(?:^ {4,7}\S.*\n)+", text or PAGE.read_text())


class Shell:
    """A folder that looks like the operator's: `manage.py`, `var/`, and the tools on the PATH."""

    def __init__(self, service: Service, folder: Path, **env: str) -> None:
        self.folder = folder
        self._env = service.environment() | env
        (folder / "manage.py").symlink_to(PROJECT / "manage.py")
        (folder / "var").symlink_to(self._env["VAR_DIR"])
        tools = folder / "bin"
        tools.mkdir()
        (tools / "python").symlink_to(sys.executable)
        paths = [str(Path(sys.executable).parent), str(tools), os.environ["PATH"]]
        if isinstance(service, FullService):
            paths.insert(0, str(postgres_install.find().binary("pg_dump").parent))
        if not shutil.which("sqlite3"):
            (tools / "sqlite3").write_text(SQLITE3.format(python=sys.executable))
            (tools / "sqlite3").chmod(0o755)
        self._env = self._env | {"PATH": os.pathsep.join(paths)}

    def run(self, commands: str, without: tuple[str, ...] = ()) -> str:
        """Run a block of the page, to its end and without a failure; what it prints."""
        ran = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", commands],
            cwd=self.folder,
            env={name: value for name, value in self._env.items() if name not in without},
            capture_output=True,
            text=True,
            timeout=RUN_SECONDS,
            check=False,
        )
        assert ran.returncode == 0, f"{commands}\n{ran.stdout}\n{ran.stderr}"
        return ran.stdout


@contextmanager
def sending(user: User) -> Iterator[list[str]]:
    """Send for as long as the block takes; the ids of what was accepted, as it comes."""
    accepted: list[str] = []
    failed: list[str] = []
    stop = threading.Event()

    def send() -> None:
        while not stop.is_set() and len(accepted) < SENDS_MAX:
            answer = user.send("hello", prefer="respond-async")
            if answer.status_code != 202:
                failed.append(answer.text)
                return
            accepted.append(answer.json()["id"])

    thread = threading.Thread(target=send)
    thread.start()
    try:
        yield accepted
    finally:
        stop.set()
        thread.join()
    assert failed == []


def stop(service: Service) -> None:
    """Stop what uses the database: the embedded process as a power cut does, others in order."""
    if isinstance(service, EmbeddedService):
        service.process.kill()
    elif isinstance(service, FullService):
        for name in APPLICATION:
            service.stack.processes[name].stop()


def start(service: Service) -> None:
    """Start it again, and wait until it serves."""
    if isinstance(service, EmbeddedService):
        service.process.start()
    elif isinstance(service, FullService):
        for name in reversed(APPLICATION):
            service.stack.start(name)
