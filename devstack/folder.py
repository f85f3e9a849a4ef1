"""What a running stack keeps in its folder: a lock, logs and the list of its processes."""

import fcntl
import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from devstack.processes import Child, DevstackError

LIST_NAME = "processes.json"


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
            (folder / LIST_NAME).unlink(missing_ok=True)


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
