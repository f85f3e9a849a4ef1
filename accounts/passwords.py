"""Hashes of passwords: few at a time, and only with what the rest of the process leaves over.

A hash takes 46 MiB and 70 ms of a core. So it is computed in threads of its own that do nothing
else: they hold no lock and no transaction, and can give way to everybody who does.
"""

import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

from django.contrib.auth.hashers import check_password, identify_hasher, make_password

#: Hashes at a time: half of the cores stay for all else, and more than two are too much memory.
HASHES_MAX = max(1, min(2, (os.cpu_count() or 1) // 2))
#: How much a hash gives way: with 10, a tenth of the processor for as long as others want it.
NICENESS = 10


def hash_password(password: str) -> str:
    """Return a new hash of a password."""
    return _threads.submit(make_password, password).result()


def is_password(password: str, password_hash: str) -> bool:
    """Say whether the hash is of this password; it takes as long as making one."""
    return _threads.submit(check_password, password, password_hash).result()


def is_outdated(password_hash: str) -> bool:
    """Say whether a new hash of the same password would be made in another way."""
    return bool(identify_hasher(password_hash).must_update(password_hash))


def _give_way() -> None:
    """Lower the priority of this thread, where that is allowed."""
    if sys.platform == "linux":
        # Elsewhere a priority belongs to the process.
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)


_threads = ThreadPoolExecutor(HASHES_MAX, thread_name_prefix="hash", initializer=_give_way)
