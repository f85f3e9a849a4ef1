"""Where a process under load spends its time.

    python -m benchmarks.profile embedded|web|worker|followers|baseline
        [--seconds 10] [--load sends|reads] [--clients 16] [--gil] [--native]

py-spy looks into the process 100 times a second, and stops it for each look: fewer requests are
served than without it. Writes `var/profile-<name>.txt`, the functions of each thread by their own
and by their cumulative time, and `var/profile-<name>.raw`, the stacks themselves, which
speedscope.app and flamegraph.pl read. Threads without work are left out; one that waits for a lock
or the database is not. `--gil` counts only who holds the interpreter's lock: what keeps others from
running. `--native` shows the frames of C as well.
"""

import argparse
import re
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from benchmarks.contenders import (
    Contender,
    EmbeddedChatledger,
    FullChatledger,
    PostgresBaseline,
)
from benchmarks.load import Load, LoadError
from devstack.application import PROJECT
from devstack.processes import DevstackError

FOLDER = PROJECT / "var"
#: Who is started, and which of its processes is looked into.
TARGETS: dict[str, tuple[Callable[[], Contender], str]] = {
    "embedded": (EmbeddedChatledger, "serve"),
    "web": (FullChatledger, "web-1"),
    "worker": (FullChatledger, "worker-1"),
    "followers": (FullChatledger, "followers-1"),
    "baseline": (PostgresBaseline, "gunicorn-1"),
}
LOADS = {"sends": ("POST", "/send/", '{"message": "hello"}'), "reads": ("GET", "/token/", "")}
USERS = 64
SAMPLES_A_SECOND = 100
WARM_UP_SECONDS = 2.0
FUNCTIONS_SHOWN = 40
#: Where threads wait for something to do. py-spy takes many of them for busy; what uvloop itself
#: does, in C, cannot be told from its waiting.
WAITING = (
    "Condition.wait (",
    "Event.wait (",
    "Runner.run (asyncio/",
    "_Keeper._renew (",
    "_worker (concurrent/",
    "select (selectors.py",
)
#: Threads with less than this of all samples are named and no more.
THREAD_SHARE_MIN = 0.01


class Unseen(Exception):
    """py-spy could not look into the process, for this reason."""


def main() -> int:
    options = parsed()
    contender_of, process = TARGETS[options.name]
    FOLDER.mkdir(exist_ok=True)
    raw = FOLDER / f"profile-{options.name}.raw"
    try:
        with contender_of() as contender:
            load = Load(*LOADS[options.load], contender.jwts(USERS))
            with ThreadPoolExecutor(1) as beside:
                seconds = options.seconds + 2 * WARM_UP_SECONDS
                measured = beside.submit(load.run, contender.url, options.clients, seconds)
                time.sleep(WARM_UP_SECONDS)
                record(contender.pids()[process], raw, options)
                figures = measured.result()
    except (Unseen, DevstackError, LoadError) as error:
        print(error, file=sys.stderr)
        return 1
    text = (
        f"{process} of {contender.name}, {options.clients} clients,"
        f" {figures.rate:.0f} {options.load}/s while looked at, failures: {figures.failures}\n"
        + summary(raw.read_text().splitlines())
    )
    file = raw.with_suffix(".txt")
    file.write_text(text)
    print(f"{text}\n{file}\n{raw}")
    return 1 if figures.failures else 0


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.profile")
    parser.add_argument("name", choices=list(TARGETS))
    parser.add_argument("--seconds", type=int, default=10)
    parser.add_argument("--load", choices=list(LOADS), default="sends")
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--gil", action="store_true", help="only who holds the interpreter's lock")
    parser.add_argument("--native", action="store_true", help="the frames of C as well")
    return parser.parse_args()


def record(pid: int, raw: Path, options: argparse.Namespace) -> None:
    """Let py-spy look into the process for the time of the options."""
    command = [str(Path(sys.executable).with_name("py-spy")), "record", "--pid", str(pid)]
    command += ["--duration", str(options.seconds), "--rate", str(SAMPLES_A_SECOND)]
    command += ["--format", "raw", "--threads", "--function", "--output", str(raw)]
    # Without `--nonblocking`: that loses most looks at a thread which runs, and shows who waits.
    command += [f"--{name}" for name in ("gil", "native") if getattr(options, name)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise Unseen("py-spy is not installed: it is in requirements-dev.txt") from None
    if done.returncode:
        raise Unseen(f"py-spy failed (it may need root): {done.stderr.strip()[-500:]}")


def summary(stacks: Iterable[str]) -> str:
    """Threads by their share of the samples that are no waiting, and below each its functions.

    A stack is a line `thread;outermost;…;innermost COUNT`. Shares are of all samples of the
    process, so that those of different threads can be compared.
    """
    threads: Counter[str] = Counter()
    own: defaultdict[str, Counter[str]] = defaultdict(Counter)
    cumulative: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for line in stacks:
        stack, _, count_text = line.rpartition(" ")
        (first, *frames), count = stack.split(";"), int(count_text)
        if frames and frames[-1].startswith(WAITING):
            continue
        thread = thread_name(first)
        threads[thread] += count
        own[thread][frames[-1] if frames else "-"] += count
        for frame in set(frames):
            cumulative[thread][frame] += count
    total = threads.total()
    lines = [f"{total} samples", ""]
    lines += [f"{count / total:6.1%}  {thread}" for thread, count in threads.most_common()]
    for thread, count in threads.most_common():
        if count / total >= THREAD_SHARE_MIN:
            lines += _of_thread(f"{thread}, by own time", own[thread], total)
            lines += _of_thread(f"{thread}, by cumulative time", cumulative[thread], total)
    return "\n".join([*lines, ""])


def thread_name(frame: str) -> str:
    """A thread as a stack begins with it, without its ids: those of one pool go by one name."""
    name = re.sub(r"^thread \((0x)?[0-9A-Fa-f]+\):? ?", "", frame)
    return re.sub(r"[-_ ]?\d+(_\d+)*$", "", name) or "main"


def _of_thread(title: str, counts: Counter[str], total: int) -> list[str]:
    shown = counts.most_common(FUNCTIONS_SHOWN)
    return ["", f"{title}:", *(f"{count / total:6.1%}  {what}" for what, count in shown)]


if __name__ == "__main__":
    sys.exit(main())
