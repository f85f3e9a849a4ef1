"""Streams that are cut: a client that comes back with its last id gets exactly the rest.

Real processes and connections, really cut and killed. `CHATLEDGER_RESUMES` makes the long test
longer or shorter.
"""

import http.client
import os
import random
import socket
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from devstack.model_scripts import TALE, hangs, says
from devstack.model_server import ModelServer
from tests.stack.client import User
from tests.stack.following import Follower, Parser
from tests.stack.services import EmbeddedService, FullService, Service, make_service, wait_for

RESUMES = int(os.environ.get("CHATLEDGER_RESUMES", "80"))
SEED = 20_261_122
#: Streams that are followed at once: what a worker takes at once, less some.
AT_ONCE = 50
CUTS_MAX = 4
#: About half of what one stream has.
CUT_BYTES_MAX = 900
ABSENT_SECONDS_MAX = 0.4
PIECES = 25
PIECE_SECONDS = 0.04
WORDS = ("once ", "Zoë ", "\N{GRINNING FACE}", "a\n\nb ", "data: x\n", "時 ", "\r\n", "~" * 60)
END_SECONDS = 60.0
#: More than the comments' distance, during which the upstream says nothing.
SILENT_SECONDS = 16.0
MESSAGES_A_USER = 40
DEAF_BYTES = 2_048
DEAF_SEGMENT_BYTES = 536
#: How much later than its text an end may come.
LATE_SECONDS_MAX = 5.0

ENV = {
    "RESPONDER": "openai",
    "OPENAI_MODEL": "scripted",
    # Room for a response that no socket takes as a whole.
    "RESPONSE_TOKENS_MAX": "32768",
}


@pytest.fixture(scope="module")
def model() -> Iterator[ModelServer]:
    with ModelServer() as server:
        yield server


@pytest.fixture(scope="module")
def embedded_told(model: ModelServer) -> Iterator[EmbeddedService]:
    with (
        tempfile.TemporaryDirectory(prefix="chatledger-") as folder,
        EmbeddedService(Path(folder), **ENV, OPENAI_BASE_URL=model.url) as service,
    ):
        yield service


@pytest.fixture(scope="module")
def full_told(model: ModelServer) -> Iterator[FullService]:
    with (
        tempfile.TemporaryDirectory(prefix="chatledger-") as folder,
        make_service(
            "full", Path(folder), {**ENV, "OPENAI_BASE_URL": model.url}, workers=2
        ) as service,
    ):
        assert isinstance(service, FullService)
        yield service


@pytest.fixture(params=["embedded", "full"])
def told(request: pytest.FixtureRequest) -> Service:
    """Each profile in turn, told what to say."""
    service: Service = request.getfixturevalue(f"{request.param}_told")
    if request.param == "full":
        request.getfixturevalue("silence")
    return service


@pytest.fixture(scope="module")
def silence(full_told: FullService, model: ModelServer) -> Iterator["Future[Follower]"]:
    """A follower of a response that is long in coming, while the other tests run."""
    model.scripts["silence"] = says(*TALE, first_after_seconds=SILENT_SECONDS)
    follower = Follower(full_told.user("listener"))
    follower.send("silence")
    with ThreadPoolExecutor(1) as listening:

        def listen() -> Follower:
            follower.read()
            return follower

        yield listening.submit(listen)


def test_two_readers_at_once_and_one_that_comes_late_get_the_same_text(
    told: Service, model: ModelServer
) -> None:
    model.scripts["to two"] = says(*TALE, every_seconds=0.1)
    first = Follower(told.user("reader"))
    first.send("to two")
    second = Follower(first.user, first.message_id)
    with ThreadPoolExecutor(2) as readers:
        reading = [readers.submit(first.read), readers.submit(second.follow)]
        first_said = first.user.message(first.message_id)
        assert first_said["status"] == "pending"
        for each in reading:
            each.result(END_SECONDS)
    late = Follower(first.user, first.message_id)
    late.follow()
    for reader in (first, second, late):
        check_end(reader, "".join(TALE))
    assert len(late.events) == 2


def test_after_the_end_each_id_gets_exactly_the_rest(told: Service, model: ModelServer) -> None:
    pieces = [f"{number} {word}" for number, word in enumerate(WORDS)]
    model.scripts["to be resumed"] = says(*pieces, every_seconds=0.05)
    follower = Follower(told.user("resumer"))
    follower.send("to be resumed")
    follower.follow()
    check_end(follower, "".join(pieces))
    assert len(follower.events) > 3
    seen = ""
    for event in follower.events[:-1]:
        seen += event.data["text"]
        again = Follower(follower.user, follower.message_id)
        again.last_id, again.text = event.id, seen
        again.follow()
        assert again.restarts == 0
        assert len(again.events) == (1 if seen == follower.text else 2)
        check_end(again, follower.text)


def test_what_is_no_id_of_an_event_is_refused(told: Service) -> None:
    user = told.user("mistaken")
    message_id = user.send("hello").headers["location"].split("/")[2]
    for last_id in ("x", "1", "1-", "-1-2", "1-2-3", "1-2-END", "1.5-2", "1-2 3", "\u0661-2"):
        answer = httpx.get(
            f"{told.url}/messages/{message_id}/stream/",
            headers={
                b"Authorization": f"Bearer {user.jwt}".encode(),
                b"Last-Event-ID": last_id.encode(),
            },
        )
        assert answer.status_code == 422, (last_id, answer.text)
        assert answer.headers["content-type"] == "application/problem+json"


def test_a_reader_that_never_reads_slows_neither_the_end_nor_others(
    told: Service, model: ModelServer
) -> None:
    line = "x" * 1_999 + "\n"
    count, every_seconds = 200, 0.01
    model.scripts["to a stone"] = says(*[line] * count, every_seconds=every_seconds)
    quick = Follower(told.user("quick"))
    quick.send("to a stone")
    with deaf(quick) as connection:
        began = time.monotonic()
        quick.read()
        took_seconds = time.monotonic() - began
        heard = connection.getresponse().read()
    check_end(quick, line * count)
    assert took_seconds < count * every_seconds + LATE_SECONDS_MAX
    *deltas, end = Parser().feed(heard)
    assert "".join(event.data["text"] for event in deltas) == quick.text
    assert end == quick.end
    # It had really not been told: what gathered before it read came as one.
    assert len(deltas) < len(quick.events) / 2


def test_a_service_that_is_killed_in_the_middle_begins_again_and_says_so(
    embedded_told: EmbeddedService, model: ModelServer
) -> None:
    void = [word.upper() for word in TALE]
    model.scripts["survive"] = [hangs(after=4, deltas=void), says(*TALE, every_seconds=0.05)]
    follower = Follower(embedded_told.user("survivor"))
    follower.send("survive")
    follower.read(until=lambda: follower.text == "".join(void[:4]))
    embedded_told.kill_worker()
    follower.hang_up()
    follower.follow()
    assert [event.name for event in follower.events].count("restart") == 1
    check_end(follower, "".join(TALE))
    embedded_told.at_rest()


def test_streams_cut_at_random_become_the_response_also_when_the_worker_dies(
    full_told: FullService, model: ModelServer
) -> None:
    seeded = random.Random(SEED)
    killed = RESUMES // 4
    users = [full_told.user(f"cut-{n}") for n in range(-(-RESUMES // MESSAGES_A_USER))]
    # Without TLS, so without the certificates that take a client longest.
    limits = httpx.Limits(max_connections=None)
    with (
        httpx.Client(verify=False, limits=limits) as client,
        ThreadPoolExecutor(AT_ONCE) as threads,
    ):
        streams = [
            CutStream(users[n // MESSAGES_A_USER], f"stream {n}", client, model, seeded)
            for n in range(RESUMES)
        ]
        for stream in streams[killed:]:
            stream.say()
        for each in [threads.submit(stream.follow) for stream in streams[killed:]]:
            each.result(END_SECONDS)
        for start in range(0, killed, AT_ONCE):
            follow_while_a_worker_dies(
                full_told, model, threads, streams[start : min(start + AT_ONCE, killed)]
            )
        for checked in [threads.submit(check_end, s.follower, s.response) for s in streams]:
            checked.result(END_SECONDS)
    cuts = sum(stream.cuts for stream in streams)
    print(f"seed {SEED}: {len(streams)} streams, {cuts} cuts, {killed} with a dead worker")  # noqa: T201
    assert cuts > len(streams)
    assert [s.follower.restarts for s in streams] == [1] * killed + [0] * (RESUMES - killed)
    full_told.at_rest()


def follow_while_a_worker_dies(
    full: FullService, model: ModelServer, threads: ThreadPoolExecutor, streams: list["CutStream"]
) -> None:
    """Let the first worker alone take these streams, and kill it in the middle of each of them."""
    full.stack.processes["worker-2"].stop()
    for stream in streams:
        stream.say_void_first()
    following = [threads.submit(stream.follow) for stream in streams]
    texts = {stream.message for stream in streams}
    wait_for(
        lambda: texts <= {asked.text for asked in model.requests}, END_SECONDS, "all to be asked"
    )
    full.stack.start("worker-2")
    wait_for(lambda: all(s.follower.text for s in streams), END_SECONDS, "all to hear something")
    full.stack.kill("worker-1")
    for each in following:
        each.result(END_SECONDS)
    full.stack.start("worker-1")
    for stream in streams:
        assert sum(asked.text == stream.message for asked in model.requests) == 2


class CutStream:
    """One message, and a client that loses its connection every now and then."""

    def __init__(
        self,
        user: User,
        message: str,
        client: httpx.Client,
        model: ModelServer,
        seeded: random.Random,
    ) -> None:
        self.message = message
        self.follower = Follower(user, client=client)
        self.cuts = 0
        self._model = model
        self._seeded = random.Random(seeded.random())
        self._pieces = self._words()

    @property
    def response(self) -> str:
        return "".join(self._pieces)

    def say(self) -> None:
        self._model.scripts[self.message] = says(*self._pieces, every_seconds=PIECE_SECONDS)

    def say_void_first(self) -> None:
        """Say other words before, and never come to their end."""
        void = self._words()
        after = self._seeded.randint(1, PIECES)
        self._model.scripts[self.message] = [
            hangs(after=after, deltas=void, every_seconds=PIECE_SECONDS),
            says(*self._pieces, every_seconds=PIECE_SECONDS),
        ]

    def follow(self) -> None:
        """Send and follow to the end, cut at random places for random times."""
        self.follower.send(self.message)
        for _ in range(self._seeded.randint(1, CUTS_MAX)):
            self.follower.read(bytes_max=self._seeded.randrange(CUT_BYTES_MAX))
            self.follower.hang_up()
            self.cuts += 1
            time.sleep(self._seeded.uniform(0, ABSENT_SECONDS_MAX))
            if self.follower.resume() == 204:
                return
        self.follower.follow()

    def _words(self) -> list[str]:
        return [self._seeded.choice(WORDS) for _ in range(PIECES)]


def test_a_silent_stream_is_kept_awake(silence: "Future[Follower]") -> None:
    follower = silence.result(END_SECONDS)
    assert follower.comments >= 1
    check_end(follower, "".join(TALE))


def check_end(follower: Follower, response: str) -> None:
    """The text that the client has put together is the stored response, and there is no more."""
    assert follower.end is not None
    assert follower.end.name == "done"
    shown = follower.user.message(follower.message_id)
    assert (shown["status"], shown["response"]) == ("done", response)
    assert follower.text == response
    assert follower.end.data == {
        "id": follower.message_id,
        "response": response,
        "cost": shown["cost"],
    }
    assert follower.resume() == 204


@contextmanager
def deaf(follower: Follower) -> Iterator[http.client.HTTPConnection]:
    """A connection that has asked for the same stream, takes next to nothing, and never reads."""
    url = urlsplit(follower.user.url)
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, DEAF_BYTES)
    # The server's side keeps as much as some of the largest segments.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, DEAF_SEGMENT_BYTES)
    listener.connect((url.hostname, url.port))
    listener.settimeout(END_SECONDS)
    connection = http.client.HTTPConnection(url.hostname or "", url.port)
    connection.sock = listener
    connection.request(
        "GET",
        f"/messages/{follower.message_id}/stream/",
        headers={"Authorization": f"Bearer {follower.user.jwt}"},
    )
    try:
        yield connection
    finally:
        connection.close()
