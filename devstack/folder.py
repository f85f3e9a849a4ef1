"""What a running stack keeps in its folder: a lock, logs, its processes and how to reach it."""

import fcntl
import json
import os
import shlex
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from devstack.processes import Child, DevstackError

LIST_NAME = "processes.json"
ENVIRONMENT_NAME = "environment.env"


@contextmanager
def own_folder(folder: Path) -> Iterator[Path]:
    """Hold the folder for one stack, without old logs; the system lets it go if we die."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        folder = folder.resolve()
        lock = (folder / "lock").open("w")
    except OSError as error:
        raise DevstackError(f"cannot write to {folder}: {error.strerror}") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DevstackError(f"a stack runs in {folder} already") from None
        for log in folder.glob("*.log"):
            log.unlink()
        try:
            yield folder
        finally:
            for name in (LIST_NAME, ENVIRONMENT_NAME):
                (folder / name).unlink(missing_ok=True)


def write_processes(folder: Path, children: Iterable[Child]) -> None:
    """Put the list of processes in its place in one step."""
    rows = [
        {
            "name": child.name,
            "pid": child.pid,
            "address": child.address,
            "log_file": str(child.log_file),
        }
        for child in children
    ]
    draft = folder / f"{LIST_NAME}.new"
    draft.write_text(json.dumps(rows, indent=2) + "\n")
    draft.replace(folder / LIST_NAME)


def write_environment(folder: Path, settings: Mapping[str, str]) -> None:
    """Let a shell that reads this file run commands against the stack; for its owner's eyes only.

    It goes when the stack does: afterwards somebody else may listen on these ports.
    """
    draft = folder / f"{ENVIRONMENT_NAME}.new"
    draft.unlink(missing_ok=True)
    with open(draft, "x", opener=lambda path, flags: os.open(path, flags, 0o600)) as file:
        file.writelines(f"{name}={shlex.quote(value)}\n" for name, value in settings.items())
    draft.replace(folder / ENVIRONMENT_NAME)
