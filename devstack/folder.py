"""What a running stack keeps in its folder: a lock, logs, its processes and how to reach it."""

import fcntl
import json
import os
import shlex
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from devstack.processes import Child, DevstackError

LIST_NAME = "processes.json"
#: The same for Prometheus (`file_sd_configs`): whose metrics are where.
TARGETS_NAME = "metrics.json"
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
            for name in (LIST_NAME, TARGETS_NAME, ENVIRONMENT_NAME):
                (folder / name).unlink(missing_ok=True)


def write_processes(folder: Path, children: Collection[Child]) -> None:
    """Put the list of processes, and that of their metrics, in their places in one step each."""
    rows = [
        {
            "name": child.name,
            "pid": child.pid,
            "address": child.address,
            "metrics": child.metrics,
            "log_file": str(child.log_file),
        }
        for child in children
    ]
    targets = [
        {"targets": [child.metrics], "labels": {"process": child.name}}
        for child in children
        if child.metrics != "-"
    ]
    _put(folder / LIST_NAME, rows)
    _put(folder / TARGETS_NAME, targets)


def _put(file: Path, rows: list[dict[str, Any]]) -> None:
    draft = file.with_name(f"{file.name}.new")
    draft.write_text(json.dumps(rows, indent=2) + "\n")
    draft.replace(file)


def write_environment(folder: Path, settings: Mapping[str, str]) -> None:
    """Let a shell that reads this file run commands against the stack; for its owner's eyes only.

    It goes when the stack does: afterwards somebody else may listen on these ports.
    """
    draft = folder / f"{ENVIRONMENT_NAME}.new"
    draft.unlink(missing_ok=True)
    with open(draft, "x", opener=lambda path, flags: os.open(path, flags, 0o600)) as file:
        file.writelines(f"{name}={shlex.quote(value)}\n" for name, value in settings.items())
    draft.replace(folder / ENVIRONMENT_NAME)
