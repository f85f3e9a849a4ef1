"""What must be in no log, traceback or broker message, and in Redis for a minute at most.

One full stack at `LOG_LEVEL=debug` in which much goes wrong, and all it wrote, read afterwards.
"""

import re
import tempfile
import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import httpx
import psycopg
import pytest
import redis
from dotenv import dotenv_values

from conversations.reply_streams import KEPT_SECONDS
from devstack.model_scripts import breaks_off, garbage, no_choices, refuses, says
from devstack.model_server import ModelServer
from tests.attacks.serving import ENVIRONMENT
from tests.stack.client import User
from tests.stack.services import FullService, wait_for

PASSWORD = "canary-password-b1946ac9"
WRONG = "canary-wrong-591785b7"
NAME = "canary-name-3e25960a"
TEXT = "canary-text-79daad31 "
TITLE = "canary-title-8c7dd922"
REASON = "canary-reason-ad47deb7"
RESPONSE = "canary-response-2bb225f0"
API_KEY = "canary-key-a50f2e81"
FORGED = "\r\n2026-11-22T00:00:00.000Z ERROR forged a line\x1b[2J\u2028forged too"
RECORDED_MAX = 100_000


@dataclass
class Recorded:
    """What Redis was told while the stack ran."""

    url: str
    commands: list[str] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> Self:
        self._client = redis.Redis.from_url(self.url)
        self._thread = threading.Thread(target=self._record, daemon=True)
        self._thread.start()
        wait_for(self._hears, 10, "MONITOR to begin")
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        # It waits for a command: this one is the last.
        self._hears()
        self._thread.join(10)
        self._client.close()

    def _hears(self) -> bool:
        with closing(redis.Redis.from_url(self.url)) as client:
            client.echo("is anybody there")
        return bool(self.commands)

    def _record(self) -> None:
        with self._client.monitor() as monitor:  # type: ignore[no-untyped-call]
            while not self._stop.is_set() and len(self.commands) < RECORDED_MAX:
                self.commands.append(monitor.next_command()["command"])


@dataclass
class Aftermath:
    """What is left when all has happened."""

    service: FullService
    commands: list[str]
    secrets: dict[str, str]
    answers: list[httpx.Response]

    @property
    def logs(self) -> dict[str, str]:
        files = self.service.stack.folder.glob("*.log")
        return {file.name: file.read_text(errors="replace") for file in files}


@pytest.fixture(scope="module")
def aftermath() -> Iterator[Aftermath]:
    with (
        tempfile.TemporaryDirectory(prefix="chatledger-") as folder,
        ModelServer(api_key=API_KEY) as model,
        FullService(
            Path(folder),
            extra_env={
                **ENVIRONMENT,
                "LOG_LEVEL": "debug",
                "RESPONDER": "openai",
                "OPENAI_BASE_URL": model.url,
                "OPENAI_API_KEY": API_KEY,
                "OPENAI_MODEL": "scripted",
                "OPENAI_FIRST_BYTE_SECONDS": "2",
            },
        ) as service,
        Recorded(service.stack.redis.url) as recorded,
    ):
        secrets = {
            name: value
            for name, value in dotenv_values(service.stack.folder / "keys.env").items()
            if value
        }
        happened = Story(service, model)
        happened.everything()
        secrets |= {"JWT": happened.jwt, "another JWT": happened.user.jwt}
        yield Aftermath(service, recorded.commands, secrets, happened.answers)


class Story:
    """Somebody whose every word is a canary, and all that can go wrong with them."""

    def __init__(self, service: FullService, model: ModelServer) -> None:
        self.service = service
        self.model = model
        self.url = service.url
        self.answers: list[httpx.Response] = []

    def everything(self) -> None:
        self.log_in()
        self.send()
        self.be_refused()
        self.break_a_row()
        self.lose_the_database()
        self.service.at_rest()

    def log_in(self) -> None:
        body = {"username": NAME, "password": PASSWORD}
        registered = self.post("/users/register/", body).json()
        self.jwt = self.post("/users/login/", body).json()["token"]
        self.user = User(self.url, NAME, registered["id"], self.jwt)

    def send(self) -> None:
        started = self.keep(self.user.post("/conversations/", {"title": TITLE})).json()["id"]
        path = f"/conversations/{started}/messages/"
        forged = f"{TEXT}{FORGED}"
        broken = {
            "fine": says(RESPONSE),
            "forged": says(f"{RESPONSE}{FORGED}"),
            "refused": refuses(400, message=f"this is not allowed: {TEXT}refused{FORGED}"),
            "failed": refuses(500, message=f"{RESPONSE}{FORGED}"),
            "cut": breaks_off(after=1, deltas=[RESPONSE, RESPONSE]),
            "garbage": garbage(f"data: {RESPONSE}{FORGED}\n\n".encode()),
            "nothing": no_choices(),
        }
        for name, script in broken.items():
            self.model.scripts[TEXT + name] = script
            self.keep(self.user.post(path, {"message": TEXT + name}))
        self.model.scripts[forged] = says(RESPONSE)
        self.keep(self.user.post(path, {"message": forged}))
        self.keep(self.user.post("/send/", {"message": f"{TEXT}fine"}, {"Idempotency-Key": "k"}))
        self.keep(self.user.post("/send/", {"message": f"{TEXT}forged"}, {"Idempotency-Key": "k"}))

    def be_refused(self) -> None:
        self.post("/users/register/", {"username": NAME, "password": PASSWORD})
        self.post("/users/register/", {"username": f"{NAME}2", "password": f"{WRONG}\0"})
        self.post("/users/register/", {"username": f"{NAME}{FORGED}", "password": PASSWORD})
        self.post("/users/login/", {"username": NAME, "password": WRONG})
        self.post("/users/login/", {"username": f"{WRONG}{FORGED}", "password": WRONG})
        change = {"current_password": WRONG, "new_password": PASSWORD}
        self.keep(self.user.post("/users/password/", change))
        self.keep(self.user.post("/send/", {"message": TEXT, TEXT: PASSWORD}))
        self.keep(self.user.get(f"/token/?at={TEXT}"))
        for raw in (f'{{"message": "{TEXT}', f'"{TEXT}{FORGED}"', f'{{"{TEXT}": 1, "{TEXT}": 2}}'):
            headers = {"Authorization": f"Bearer {self.jwt}", "Content-Type": "application/json"}
            self.keep(httpx.post(f"{self.url}/send/", content=raw.encode(), headers=headers))
        headers = {"Authorization": f"Bearer {self.jwt}x", "X-Request-ID": f"{TEXT}\x1b[2J"}
        self.keep(httpx.get(f"{self.url}/token/", headers=headers))
        done = self.service.run("manage.py", "grant_tokens", NAME, "5", "--reason", REASON)
        assert done.returncode == 0, done.stderr

    def break_a_row(self) -> None:
        """Damage one text, so that reading it is a mistake nobody foresaw, with a traceback."""
        self.bend()
        self.keep(self.user.get("/token/statement/"))
        self.bend()

    def bend(self) -> None:
        """Turn one bit of each reason around; a second time it is as it was."""
        last = "octet_length(reason) - 1"
        bent = f"set_byte(reason, {last}, get_byte(reason, {last}) # 1)"
        with psycopg.connect(self.service.stack.postgres.url, autocommit=True) as postgres:
            sql = f"UPDATE projections_statement SET reason = {bent} WHERE reason IS NOT NULL"
            assert postgres.execute(sql.encode()).rowcount > 0

    def lose_the_database(self) -> None:
        self.service.stack.postgres.stop(mode="immediate")
        self.keep(self.user.post("/send/", {"message": f"{TEXT}fine"}))
        self.post("/users/login/", {"username": NAME, "password": PASSWORD})
        self.service.stack.postgres.start()

        def serves() -> bool:
            answer = self.user.post("/send/", {"message": f"{TEXT}fine"})
            return answer.status_code == 201

        wait_for(serves, 30, "service after PostgreSQL's return")

    def post(self, path: str, body: Any) -> httpx.Response:
        return self.keep(httpx.post(self.url + path, json=body, timeout=60))

    def keep(self, answer: httpx.Response) -> httpx.Response:
        self.answers.append(answer)
        return answer


def test_the_story_went_as_it_was_meant_to(aftermath: Aftermath) -> None:
    statuses = {answer.status_code for answer in aftermath.answers}
    assert statuses >= {200, 201, 400, 401, 409, 422, 500, 502, 503}
    logged = "".join(aftermath.logs.values())
    assert "Traceback" in logged
    assert "got no response" in logged


@pytest.mark.parametrize(
    "canary",
    [PASSWORD, WRONG, NAME, TEXT.strip(), TITLE, REASON, RESPONSE, API_KEY],
)
def test_no_log_holds_what_a_user_says(aftermath: Aftermath, canary: str) -> None:
    for name, log in aftermath.logs.items():
        assert [line for line in log.splitlines() if canary in line] == [], name


def test_no_log_holds_a_key_or_a_jwt(aftermath: Aftermath) -> None:
    for file, log in aftermath.logs.items():
        assert [name for name, secret in aftermath.secrets.items() if secret in log] == [], file


def test_nobody_can_forge_a_line(aftermath: Aftermath) -> None:
    for name, log in aftermath.logs.items():
        assert not re.search(r"[\x1b\u2028\u2029\x85]", log), name
        assert not re.search(r"(?m)^.{0,40}forged", log), name


def test_no_answer_holds_a_secret_or_what_was_only_ours(aftermath: Aftermath) -> None:
    keys = {name: key for name, key in aftermath.secrets.items() if name.endswith("_KEY")}
    assert len(keys) == 4
    keys |= {"password": PASSWORD, "another password": WRONG, "key": API_KEY}
    for answer in aftermath.answers:
        shown = f"{answer.headers} {answer.text}"
        assert [name for name, key in keys.items() if key in shown] == [], answer.url
        assert "Traceback" not in shown


def test_redis_is_told_ids_and_of_a_response_nothing_but_its_stream(aftermath: Aftermath) -> None:
    assert 10 < len(aftermath.commands) < RECORDED_MAX
    never = [PASSWORD, WRONG, NAME, TEXT.strip(), TITLE, REASON, API_KEY]
    never += aftermath.secrets.values()
    for command in aftermath.commands:
        assert not any(secret in command for secret in never), command[:500]
        if RESPONSE in command:
            assert "reply:" in command, command[:500]
    assert any("generate_response" in command for command in aftermath.commands)


def test_redis_forgets_every_text_a_minute_after_its_end(aftermath: Aftermath) -> None:
    with closing(redis.Redis.from_url(aftermath.service.stack.redis.url)) as client:
        streams: Any = client.keys("reply:*")
        assert streams
        for stream in streams:
            assert 0 <= client.ttl(stream) <= KEPT_SECONDS
        others: Any = client.keys("*")
        for key in {*others} - {*streams}:
            held: Any = client.dump(key) or b""
            assert RESPONSE.encode() not in held, key
