"""The full stack before a scripted model server, each process to be asked what it has used."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from devstack.application import PROJECT, UNLIMITED, clean_environment
from devstack.model_scripts import MODEL
from devstack.processes import LOOPBACK, Child, free_port, wait_until_ready, why_not_free
from devstack.stack import Stack

MODEL_START_SECONDS = 20.0
MODEL_STOP_SECONDS = 2.0


@contextmanager
def streaming_stack(folder: Path, *, streams: int) -> Iterator[tuple[Stack, int]]:
    """A full stack whose one worker answers so many messages at a time, and its model's port.

    The model server is one of `stack.processes`, as "model".
    """
    port = free_port()
    command = [sys.executable, "-m", "devstack.model_server", "--scripted-by-message"]
    model = Child(
        "model", [*command, "--port", str(port)], clean_environment(), folder / "model.log", PROJECT
    )
    environment = UNLIMITED | {
        "RESPONDER": "openai",
        "OPENAI_BASE_URL": f"http://{LOOPBACK}:{port}/v1",
        "OPENAI_MODEL": MODEL,
        "WORKER_THREADS": str(streams),
        "SIGNUP_TOKENS": "100000000",
    }
    model.start()
    try:
        wait_until_ready(
            [model],
            lambda: bool(why_not_free(port)),
            timeout_seconds=MODEL_START_SECONDS,
            what="the model server",
        )
        with Stack(folder / "stack", extra_env=environment) as stack:
            stack.processes["model"] = model
            yield stack, port
    finally:
        model.stop(MODEL_STOP_SECONDS)


@dataclass(frozen=True)
class Used:
    """What a process and its descendants have used since they began."""

    cpu_seconds: float
    peak_rss_bytes: int
    """The sum of their peaks; memory that several share counts in each of them."""


def used(pid: int) -> Used:
    """What a process and its descendants have used, those that have ended included (proc(5))."""
    folder = Path("/proc") / str(pid)
    fields = (folder / "stat").read_text().rpartition(")")[2].split()
    ticks = sum(map(int, fields[11:13]))
    # In the count of its parent stand the children that have ended.
    ended_ticks = sum(map(int, fields[13:15]))
    status = dict(line.split(":", 1) for line in (folder / "status").read_text().splitlines())
    peak = int(status["VmHWM"].split()[0]) * 1024
    cpu = (ticks + ended_ticks) / os.sysconf("SC_CLK_TCK")
    # Only those of the main thread: nobody here forks in another one.
    children = (folder / "task" / str(pid) / "children").read_text().split()
    below = [used(int(child)) for child in children]
    return Used(
        cpu + sum(each.cpu_seconds for each in below),
        peak + sum(each.peak_rss_bytes for each in below),
    )


def used_by_machine() -> float:
    """The CPU seconds that everything on this machine has used, the kernel included (proc(5))."""
    user, nice, system, _, _, irq, softirq = map(
        int, Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:8]
    )
    return (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")
