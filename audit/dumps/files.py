"""Where dumps go and come from: a file that appears whole or not at all, or a pipe."""

import contextlib
import os
import secrets
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from audit.dumps.errors import DumpRefused

#: What stands for standard output, or standard input.
PIPE = "-"
FILE_MODE = 0o600


@contextlib.contextmanager
def written(name: str) -> Iterator[BinaryIO]:
    """A new file of that name, private, on disk and whole when the block ends; else none."""
    if name == PIPE:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    path = Path(name)
    _require_new(path)
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        with os.fdopen(
            os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, FILE_MODE), "wb"
        ) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        _require_new(path)
        draft.rename(path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


@contextlib.contextmanager
def opened(name: str) -> Iterator[BinaryIO]:
    """The dump of that name, to be read."""
    if name == PIPE:
        yield sys.stdin.buffer
        return
    with Path(name).open("rb") as file:
        yield file


def _require_new(path: Path) -> None:
    if os.path.lexists(path):
        raise DumpRefused(f"{path} is there already, and is not overwritten")


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
