"""A scripted server, in place of a model, for each test of the openai responder."""

from collections.abc import Iterator

import pytest
from pytest_django import Settings

from conversations.responders import openai, upstream
from devstack.model_scripts import MODEL
from devstack.model_server import ModelServer
from tests.conversations.openai.asking import forget_the_upstream


@pytest.fixture(autouse=True)
def fresh_process() -> None:
    """Nothing here needs the database that the other tests of this folder start with."""


@pytest.fixture(scope="module")
def lasting_server() -> Iterator[ModelServer]:
    with ModelServer() as server:
        yield server
    forget_the_upstream()


@pytest.fixture
def server(
    lasting_server: ModelServer, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> ModelServer:
    """A scripted server that the settings name, and an upstream that knows nothing about it yet."""
    lasting_server.requests.clear()
    lasting_server.scripts.clear()
    settings.RESPONDER = "openai"
    settings.OPENAI_BASE_URL = lasting_server.url
    settings.OPENAI_MODEL = MODEL
    settings.WORKER_THREADS = 64
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setattr(openai, "BACKOFF_SECONDS", 0.02)
    monkeypatch.setattr(upstream.upstream(), "limit_name", "max_tokens")
    return lasting_server


@pytest.fixture
def by_usage(settings: Settings) -> None:
    settings.PRICING = "usage"
    settings.PROMPT_PRICE_PER_1000 = 10
    settings.COMPLETION_PRICE_PER_1000 = 40
