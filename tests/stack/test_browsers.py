"""A page of another origin, and TLS in front: what a browser is told."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.stack.client import OPTIONS
from tests.stack.services import EmbeddedService

OURS = "https://app.example.org"
PORTED = "http://localhost:3000"
OTHERS = [
    "https://evil.example.org",
    "http://app.example.org",
    "https://app.example.org:8443",
    "https://app.example.org.evil.example",
    "https://sub.app.example.org",
    "null",
]


@pytest.fixture(scope="module")
def service() -> Iterator[EmbeddedService]:
    with (
        tempfile.TemporaryDirectory(prefix="chatledger-") as folder,
        EmbeddedService(
            Path(folder),
            CORS_ALLOWED_ORIGINS=f"{OURS}, {PORTED}",
            TRUSTED_PROXIES="127.0.0.1",
            RATE_LIMIT_SEND="1000/minute",
        ) as running,
    ):
        yield running


def allowed(answer: httpx.Response) -> dict[str, str]:
    """What the answer allows another origin."""
    prefix = "access-control-"
    return {
        name.removeprefix(prefix): value
        for name, value in answer.headers.items()
        if name.startswith(prefix)
    }


def preflight(service: EmbeddedService, origin: str, path: str = "/send/") -> httpx.Response:
    asked = {
        "Origin": origin,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization,content-type,idempotency-key,prefer",
    }
    return httpx.options(service.url + path, headers=asked)


@pytest.mark.parametrize("origin", [OURS, PORTED])
def test_a_page_of_an_allowed_origin_may_ask(service: EmbeddedService, origin: str) -> None:
    answer = preflight(service, origin)

    assert answer.status_code == 200
    told = allowed(answer)
    assert told["allow-origin"] == origin
    assert told["allow-credentials"] == "true"
    assert set(told["allow-methods"].split(", ")) == {"GET", "HEAD", "POST", "PATCH", "DELETE"}
    wanted = {"authorization", "content-type", "idempotency-key", "last-event-id", "prefer"}
    assert wanted <= set(told["allow-headers"].split(", "))
    assert int(told["max-age"]) > 0
    assert "origin" in answer.headers["vary"].lower()
    assert answer.headers["x-request-id"]


def test_a_page_of_an_allowed_origin_can_read_what_it_needs(service: EmbeddedService) -> None:
    user = service.user("in-a-browser")
    sent = user.post("/send/", {"message": "hello"}, {"Origin": OURS, "Prefer": "wait=10"})

    assert sent.status_code == 201
    told = allowed(sent)
    assert told["allow-origin"] == OURS
    readable = set(told["expose-headers"].lower().split(", "))
    for name in ("location", "x-request-id", "ratelimit", "ratelimit-policy", "preference-applied"):
        assert name in sent.headers
        assert name in readable
    assert {"link", "retry-after", "www-authenticate"} <= readable
    assert {part.strip().lower() for part in sent.headers["vary"].split(",")} == {
        *("prefer", "accept", "origin")
    }


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/token/", 401),
        ("GET", "/nowhere/", 404),
        ("PUT", "/send/", 405),
        ("POST", "/users/login/", 422),
    ],
)
def test_an_allowed_page_can_read_errors_too(
    service: EmbeddedService, method: str, path: str, status: int
) -> None:
    answer = httpx.request(method, service.url + path, headers={"Origin": OURS})

    assert answer.status_code == status
    assert allowed(answer)["allow-origin"] == OURS


@pytest.mark.parametrize("origin", OTHERS)
def test_no_other_origin_may_anything(service: EmbeddedService, origin: str) -> None:
    for answer in (
        preflight(service, origin),
        httpx.get(f"{service.url}/users/", headers={"Origin": origin}, **OPTIONS),
    ):
        assert not {"allow-origin", "allow-credentials"} & allowed(answer).keys()


def test_behind_tls_a_browser_is_told_to_stay_there(service: EmbeddedService) -> None:
    tls = httpx.get(f"{service.url}/livez/", headers={"X-Forwarded-Proto": "https"}, **OPTIONS)
    plain = httpx.get(f"{service.url}/livez/", headers={"X-Forwarded-Proto": "http"}, **OPTIONS)

    assert tls.headers["strict-transport-security"] == "max-age=31536000"
    assert "strict-transport-security" not in plain.headers
