"""The way to the upstream: its key, the probe, and what a process has of it."""

import logging
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Iterator

import pytest
from pytest_django import Settings

from config.environment import KEY_NAMES, PROJECT_DIR
from config.keyfile import new_key
from conversations.responders import ResponderFailed, Stopped, openai, upstream
from conversations.responders.openai import probe
from devstack.model_scripts import MODEL, Script, garbage, hangs, refuses
from devstack.model_server import ModelServer
from devstack.processes import free_port
from tests.config.processes import FULL, environment
from tests.conversations.openai.asking import (
    KEY,
    PROMPTLY_SECONDS,
    Heard,
    another_upstream,
    ask,
    asking,
    forget_the_upstream,
    hung_up_at,
)


@pytest.fixture
def with_key(server: ModelServer, settings: Settings) -> Iterator[None]:
    settings.OPENAI_API_KEY = KEY
    with another_upstream():
        yield


def test_the_key_is_sent(server: ModelServer, with_key: None) -> None:
    ask()

    assert server.requests[0].headers["authorization"] == f"Bearer {KEY}"


@pytest.mark.parametrize(
    "script",
    [
        refuses(401, message=f"Incorrect API key provided: {KEY}.", code="invalid_api_key"),
        refuses(400, message=f"{'x' * 490} {KEY}"),
        Script(status=404, body=f"<p>{KEY}</p>".encode()),
        Script(status=503, body=f"[{KEY}]".encode()),
        garbage(b'data: {"error": {"message": "%b"}}\n\n' % KEY.encode()),
        garbage(b"data: " + KEY.encode() + b"\n\n"),
        garbage(b"", content_type=KEY),
    ],
)
def test_a_key_that_an_upstream_repeats_is_nowhere_in_what_is_logged(
    server: ModelServer, with_key: None, caplog: pytest.LogCaptureFixture, script: Script
) -> None:
    server.scripts["hello"] = script
    caplog.set_level(logging.INFO)

    with pytest.raises(ResponderFailed) as failed:
        ask()

    shown = "".join(traceback.format_exception(failed.value)) + caplog.text
    assert KEY not in shown
    assert KEY[:-1] not in shown


def probed(caplog: pytest.LogCaptureFixture) -> tuple[str, str]:
    caplog.set_level(logging.INFO, "conversations")
    caplog.clear()
    probe()
    (record,) = caplog.records
    assert "\n" not in record.getMessage()
    return record.levelname, record.getMessage()


def test_the_probe_finds_the_model(server: ModelServer, caplog: pytest.LogCaptureFixture) -> None:
    assert probed(caplog) == ("INFO", f"the upstream {server.url} knows the model {MODEL}")


def test_the_probe_names_a_model_that_is_not_listed(
    server: ModelServer, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    settings.OPENAI_MODEL = "another"

    level, line = probed(caplog)

    assert level == "WARNING"
    assert line.endswith(f"does not list the model another; it lists: {MODEL}")


def test_the_probe_says_when_the_upstream_is_away(
    server: ModelServer, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    settings.OPENAI_BASE_URL = f"http://127.0.0.1:{free_port()}/v1"
    with another_upstream():
        level, line = probed(caplog)

    assert level == "WARNING"
    assert "is not reachable: ConnectError" in line


def test_the_probe_says_when_the_key_is_refused_and_not_which(
    server: ModelServer,
    settings: Settings,
    with_key: None,
    caplog: pytest.LogCaptureFixture,
) -> None:
    with ModelServer(api_key="another") as strict:
        settings.OPENAI_BASE_URL = strict.url
        level, line = probed(caplog)

    assert level == "WARNING"
    assert "OPENAI_API_KEY is refused: status 401: Incorrect API key provided: ***." in line


@pytest.mark.parametrize(("responder", "probes"), [("openai", 1), ("dummy", 0)])
def test_a_worker_that_starts_probes_the_upstream_it_asks(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, responder: str, probes: int
) -> None:
    from config import runtime
    from conversations import worker

    settings.RESPONDER = responder
    probed_in: list[threading.Thread] = []
    monkeypatch.setattr(worker, "start_worker", lambda threads: None)
    monkeypatch.setattr(openai, "probe", lambda: probed_in.append(threading.current_thread()))

    runtime.start_worker()

    for thread in threading.enumerate():
        if thread.name == "probe":
            thread.join(5)
    assert [thread.daemon for thread in probed_in] == [True] * probes


def test_a_proxy_of_the_environment_is_heeded(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NO_PROXY", "no_proxy", "ALL_PROXY", "all_proxy", "http_proxy", "https_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy:3128")

    assert upstream._proxy("https://api.example.org/v1") == "http://proxy:3128"
    assert upstream._proxy("http://localhost:11434/v1") is None
    monkeypatch.setenv("NO_PROXY", "example.org")
    assert upstream._proxy("https://api.example.org:8443/v1") is None


def test_a_stop_of_the_process_breaks_off_what_runs(server: ModelServer) -> None:
    server.scripts["hello"] = hangs(after=1)
    reply = Heard()

    with asking(reply) as answer:
        server.wait_for(lambda: reply.pieces)
        began = time.monotonic()
        forget_the_upstream()
        with pytest.raises(Stopped):
            answer.result(5)

    assert hung_up_at(server) - began < PROMPTLY_SECONDS


WEB = "import django; django.setup(); import config.asgi, conversations.api"
DUMMY = (
    "import django; django.setup(); import conversations.worker;"
    "from conversations.responders import make_responder; make_responder()"
)
UPSTREAM = {"RESPONDER": "openai", "OPENAI_BASE_URL": "http://127.0.0.1:1/v1", "OPENAI_MODEL": "m"}


@pytest.mark.parametrize(
    ("code", "settings_of_it"), [(WEB, UPSTREAM), (DUMMY, {"RESPONDER": "dummy"})]
)
def test_who_asks_no_upstream_does_not_import_the_library(
    code: str, settings_of_it: dict[str, str]
) -> None:
    keys = {name: new_key() for name in KEY_NAMES}
    result = subprocess.run(
        [sys.executable, "-c", f"{code}; import sys; sys.exit('openai' in sys.modules)"],
        cwd=PROJECT_DIR,
        env=environment(DJANGO_SETTINGS_MODULE="config.settings", **FULL, **keys, **settings_of_it),
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )

    assert (result.returncode, result.stderr) == (0, "")


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("status 404: there is no model x", "status 404: there is no model x"),
        ("invalid: my secret diary of 1999", "invalid: […]"),
        ('invalid: {"content": "my secret diary of 1999"}', 'invalid: {"content": […]}'),
        ("invalid: ...cret diary of 1999 was", "invalid: ...[…] was"),
        ('invalid: "caf\\u00e9 au lait, twice"', "invalid: […]"),
        ("you said canary, did you", "you said […], did you"),
        ("my secret is short", "my secret is short"),
        ("invalid: hello bob42 is not ok", "invalid: […] is not ok"),
        ("bad request: his hi five is abc123", "bad request: […]"),
        ("Error 422 - [{'input': 'żółw:\\nkot12\\nkoń 4711'}]", "Error 422 - [{'input': […]}]"),
        ("", ""),
    ],
)
def test_what_an_error_quotes_of_a_conversation_is_left_out(text: str, kept: str) -> None:
    said = ["my secret diary of 1999", "café au lait, twice", "canary", "hi", "hello"]
    said += ["hello bob42", "five", "his hi five is abc123", "żółw:\nkot12\nkoń 4711"]
    assert openai.without(text, said) == kept


def test_leaving_quotations_out_takes_no_time_worth_the_name() -> None:
    text = ("a" * 11 + "c") * (openai.QUOTED_CHARACTERS_MAX // 12)
    began = time.perf_counter()
    openai.without(text, ["a" * openai.SAID_CHARACTERS_MAX])
    assert time.perf_counter() - began < 0.5
