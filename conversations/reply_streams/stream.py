"""One message's stream as a process has it: what was said, once, however many read it here."""

import asyncio
import threading

from conversations.reply_streams import (
    Closed,
    End,
    Forgotten,
    Item,
    Restart,
    Transcript,
)


class Stream:
    """What was said of a message; its readers are woken, and read what is new to each of them."""

    def __init__(self) -> None:
        self.guard = threading.Lock()
        self.transcript = Transcript()
        self.readers: set[Reader] = set()
        self.end: End | None = None
        self.closed = False
        self.forgotten = False

    def take(self, item: Item) -> None:
        """Add an item; only the end comes after `Closed`, and nothing after it or `Forgotten`."""
        with self.guard:
            if self.end is not None or self.forgotten:
                return
            if isinstance(item, End):
                self.end = item
            elif isinstance(item, Closed):
                self.closed = True
            elif isinstance(item, Forgotten):
                self.forgotten = True
                self.transcript = Transcript()
            elif not self.closed:
                self.transcript.take(item)
            # Most wait for the end, and need not be woken for what comes before it.
            readers = [each for each in self.readers if self.end or not each.only_end]
        for reader in readers:
            reader.wake()

    def items(self) -> list[Item]:
        """What was said, in as few items as say it."""
        with self.guard:
            said: list[Item] = []
            if self.transcript.characters:
                said.append(self.transcript.delta(0))
            if self.closed:
                said.append(Closed())
            if self.forgotten:
                said.append(Forgotten())
            return [*said, self.end] if self.end else said


class Reader:
    """One who reads a stream on an event loop.

    At most one wake-up is on its way at a time: what is said meanwhile comes with it as one piece,
    so that a reader costs by what it reads and not by how many pieces that came in.
    """

    def __init__(self, stream: Stream, *, only_end: bool) -> None:
        self.only_end = only_end
        self.said: asyncio.Queue[Item] = asyncio.Queue()
        self._stream = stream
        self._wake_ups = _wake_ups_of(asyncio.get_running_loop())
        self._attempt = 0
        self._characters = 0
        self._woken = False
        self._ended = False

    def wake(self) -> None:
        """Have the news read soon; from any thread."""
        if not self._woken:
            self._woken = True
            self._wake_ups.add(self)

    def hear(self) -> None:
        """Put what is new into the queue."""
        # Before it reads: what is said from here on wakes it again.
        self._woken = False
        with self._stream.guard:
            transcript, end = self._stream.transcript, self._stream.end
            if not self.only_end:
                self._catch_up(transcript)
        if end is not None and not self._ended:
            self._ended = True
            self.said.put_nowait(end)

    def _catch_up(self, transcript: Transcript) -> None:
        if transcript.attempt > self._attempt:
            self._attempt, self._characters = transcript.attempt, 0
            self.said.put_nowait(Restart(self._attempt))
        if transcript.attempt == self._attempt and transcript.characters > self._characters:
            self.said.put_nowait(transcript.delta(self._characters))
            self._characters = transcript.characters


class _WakeUps:
    """The readers of one event loop that have news: one wake-up of the loop is for all of them.

    Each is a system call, and what ends together is told together.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._guard = threading.Lock()
        self._readers: list[Reader] = []

    def add(self, reader: Reader) -> None:
        """Have a reader read its news soon; from any thread."""
        with self._guard:
            self._readers.append(reader)
            if len(self._readers) > 1:
                return
        try:
            self.loop.call_soon_threadsafe(self._hear)
        except RuntimeError:
            # A loop that is closed has no readers any more.
            self._readers.clear()

    def _hear(self) -> None:
        with self._guard:
            readers, self._readers = self._readers, []
        for reader in readers:
            reader.hear()


_wake_ups: list[_WakeUps] = []


def _wake_ups_of(loop: asyncio.AbstractEventLoop) -> _WakeUps:
    """Those of the loop, which is one for the life of a process."""
    if not _wake_ups or _wake_ups[0].loop is not loop:
        _wake_ups[:] = [_WakeUps(loop)]
    return _wake_ups[0]
