"""An upstream refuses, hangs, breaks off, floods or says nonsense: one end within the deadline.

What the responder makes of each of them is told by tests/conversations/openai;
here it is asked by a real worker, of which the memory is measured.
"""

from pathlib import Path

from devstack.model_scripts import (
    DONE,
    TALE,
    Script,
    breaks_off,
    floods,
    garbage,
    hangs,
    no_choices,
    refuses,
    says,
    trickles,
)
from devstack.model_server import ModelServer
from tests.faults.checker import check
from tests.faults.conftest import TOLD_DEADLINE_SECONDS
from tests.faults.counts import count
from tests.figures import Figure
from tests.stack.services import FullService

EACH = count(short=1, full=20)
MEBIBYTE = 1024 * 1024
FLOOD_BYTES = 50 * MEBIBYTE
#: What one response may take of the worker: the most it may weigh, and a copy or two of that.
MEMORY_BYTES_EACH_MAX = 4 * 8 * MEBIBYTE
MEMORY_BYTES_MAX = 32 * MEBIBYTE
#: A sweep is a second away at most; the rest is what a busy machine takes.
SWEEP_SECONDS_MAX = 4.0

KINDS: dict[str, tuple[Script | list[Script], str]] = {
    "well-behaved": (says(*TALE), "done"),
    "429 with Retry-After": ([refuses(429, retry_after=1), says(*TALE)], "done"),
    "429 for ever": (refuses(429, retry_after=3600), "failed"),
    "500": (refuses(500), "failed"),
    "hangs before the headers": (hangs(after="before_headers"), "failed"),
    "hangs after the headers": (hangs(after="after_headers"), "failed"),
    "hangs after some text": (hangs(after=4), "failed"),
    "half a stream": (breaks_off(after=4), "failed"),
    "invalid JSON": (garbage(b'data: {"choices": [}\n\n' + DONE), "failed"),
    "no stream at all": (garbage(b"<html>Bad Gateway</html>", "text/html"), "failed"),
    "no choices": (no_choices(), "failed"),
    "50 MB": (floods(FLOOD_BYTES), "failed"),
    "a byte a second": (trickles(*TALE, byte_seconds=1.0), "failed"),
}


def test_however_an_upstream_misbehaves_there_is_one_end_within_the_deadline(
    told: FullService, model: ModelServer, figure: Figure
) -> None:
    texts = {f"{kind}, {number}": kind for kind in KINDS for number in range(EACH)}
    model.scripts |= {text: KINDS[kind][0] for text, kind in texts.items()}
    users = [told.user(f"upstream-{number}") for number in range(EACH)]
    assert users[0].send("to warm up").status_code == 201
    worker = Memory(told.stack.processes["worker-1"].pid)
    messages = {}
    for number, (text, kind) in enumerate(texts.items()):
        answer = users[number % EACH].send(text, prefer="respond-async")
        assert answer.status_code == 202, answer.text
        messages[answer.json()["id"]] = kind
    ledger = check(told)
    peak_bytes = worker.peak_bytes
    sent_at = {line.stream: line.at for line in ledger.of("MessageSent")}
    seconds = {each: (ledger.end_of(each).at - sent_at[each]) / 1e6 for each in messages}
    figure("seconds to the end", seconds.values())
    figure("MiB of the worker at rest", [worker.before_bytes / MEBIBYTE])
    figure("MiB of the worker at its peak", [peak_bytes / MEBIBYTE])
    for message_id, kind in messages.items():
        expected = {"done": "ResponseGenerated", "failed": "ResponseFailed"}[KINDS[kind][1]]
        end = ledger.end_of(message_id)
        assert (kind, end.kind) == (kind, expected)
        assert ledger.refunds_of(message_id) == ([] if expected == "ResponseGenerated" else [100])
        assert (kind, seconds[message_id]) < (kind, TOLD_DEADLINE_SECONDS + SWEEP_SECONDS_MAX)
    # The floods are the only ones that could fill it.
    assert peak_bytes - worker.before_bytes < MEMORY_BYTES_MAX + EACH * MEMORY_BYTES_EACH_MAX


class Memory:
    """What a process has of the machine's memory, from now on (proc_pid_status(5))."""

    def __init__(self, pid: int) -> None:
        self._folder = Path(f"/proc/{pid}")
        # Forget the peak so far (proc_pid_clear_refs(5)).
        (self._folder / "clear_refs").write_text("5")
        self.before_bytes = self.peak_bytes

    @property
    def peak_bytes(self) -> int:
        for line in (self._folder / "status").read_text().splitlines():
            name, _, value = line.partition(":")
            if name == "VmHWM":
                return int(value.split()[0]) * 1024
        raise AssertionError("the kernel tells no peak")
