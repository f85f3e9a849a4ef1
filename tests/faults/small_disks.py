"""Disks that are full, and have room again: a small tmpfs, or where nobody may mount one, a limit.

Under the limit no process of the service can write any file (setrlimit(2), RLIMIT_FSIZE), as on a
disk that is full to its last byte.
"""

import os
import resource
import subprocess
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

FILLER = "filler"
PIECE_BYTES = 64 * 1024


class Disk(Protocol):
    """A disk that can be made full."""

    def fill(self) -> None:
        """Leave no byte."""

    def make_room(self) -> None:
        """Take away what filled it."""


class Tmpfs:
    """A small file system of its own."""

    def __init__(self, folder: Path) -> None:
        self._filler = folder / FILLER

    def fill(self) -> None:
        size = PIECE_BYTES
        with self._filler.open("ab", buffering=0) as filler:
            while size:
                try:
                    filler.write(b"x" * size)
                except OSError:
                    size //= 2

    def make_room(self) -> None:
        self._filler.unlink()


class Limit:
    """No room for some processes: those that there are, and those that they start."""

    def __init__(self, pids: Callable[[], Iterable[int]]) -> None:
        self._pids = pids

    def fill(self) -> None:
        self._limit(0)

    def make_room(self) -> None:
        self._limit(resource.RLIM_INFINITY)

    def _limit(self, soft: int) -> None:
        for pid in self._pids():
            try:
                resource.prlimit(pid, resource.RLIMIT_FSIZE, (soft, resource.RLIM_INFINITY))
            except ProcessLookupError:
                continue  # it has ended meanwhile


def may_mount() -> bool:
    """Whether this process may mount a file system."""
    if os.geteuid() != 0:
        return False
    # In a name space of its own, which is gone with it.
    tried = ["unshare", "--mount", "mount", "-t", "tmpfs", "tmpfs", "/mnt"]
    try:
        return subprocess.run(tried, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


@contextmanager
def tmpfs(folder: Path, size_bytes: int) -> Iterator[Tmpfs]:
    """Mount one of this size over a folder, for the time being."""
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size_bytes},mode=711", "tmpfs", str(folder)],
        check=True,
    )
    try:
        yield Tmpfs(folder)
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def with_children(pid: int) -> list[int]:
    """A process and its children, which is all that PostgreSQL has."""
    found = [pid]
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            # The name may hold anything, a closing bracket too (proc_pid_stat(5)).
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
        except (FileNotFoundError, ProcessLookupError):
            continue
        if parent == pid:
            found.append(int(stat.parent.name))
    return found
