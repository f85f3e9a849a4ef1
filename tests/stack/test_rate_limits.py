"""Limits over real processes: several of them, behind a proxy, without Redis, and as shipped."""

import tempfile
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from devstack.application import Embedded
from tests.stack.client import PASSWORD, TIMEOUT_SECONDS, register
from tests.stack.services import FullService

GUESSES = 10


@pytest.fixture(scope="module")
def two_webs() -> Iterator[FullService]:
    """Two web processes that trust a proxy on this machine."""
    limits = {
        "RATE_LIMIT_LOGIN": f"{GUESSES}/5minutes",
        "RATE_LIMIT_SEND": "20/minute",
        "TRUSTED_PROXIES": "127.0.0.1",
    }
    with (
        tempfile.TemporaryDirectory(prefix="chatledger-") as folder,
        FullService(Path(folder), extra_env=limits, webs=2) as running,
    ):
        yield running


def guess(url: str, name: str, password: str = "a guess", forwarded: str = "") -> httpx.Response:
    return httpx.post(
        f"{url}/users/login/",
        json={"username": name, "password": password},
        headers={"X-Forwarded-For": forwarded} if forwarded else {},
        timeout=TIMEOUT_SECONDS,
    )


def test_guesses_at_all_processes_together_are_no_more_than_at_one(two_webs: FullService) -> None:
    two_webs.user("guessed-at")
    urls = two_webs.stack.urls * 20
    with ThreadPoolExecutor(20) as clients:
        answers = list(clients.map(lambda url: guess(url, "guessed-at"), urls))

    assert Counter(answer.status_code for answer in answers) == {401: GUESSES, 429: 30}
    for url in two_webs.stack.urls:
        assert guess(url, "guessed-at", PASSWORD).status_code == 429


def test_behind_a_proxy_each_client_has_an_address_and_cannot_choose_another(
    two_webs: FullService,
) -> None:
    two_webs.user("behind-a-proxy")
    for number in range(GUESSES):
        # The proxy appends whom it sees; what stands before it the client made up.
        answer = guess(two_webs.url, "behind-a-proxy", forwarded=f"192.0.2.{number}, 198.51.100.7")
        assert answer.status_code == 401
    spoofed = guess(two_webs.url, "behind-a-proxy", forwarded="127.0.0.1, 192.0.2.99, 198.51.100.7")
    same_network = [
        guess(two_webs.url, "behind-a-proxy", forwarded=f"2001:db8:1:2::{number}").status_code
        for number in range(GUESSES + 1)
    ]

    assert spoofed.status_code == 429
    assert same_network == [401] * GUESSES + [429]
    assert guess(two_webs.url, "behind-a-proxy", PASSWORD, "198.51.100.8").status_code == 200


def test_without_redis_sends_and_logins_go_on_and_are_still_limited(
    two_webs: FullService,
) -> None:
    user = two_webs.user("without-redis")
    two_webs.stack.kill("redis")
    try:
        guesses = [guess(two_webs.url, user.name).status_code for _ in range(GUESSES + 1)]
        with ThreadPoolExecutor(8) as clients:
            sends = Counter(
                answer.status_code
                for answer in clients.map(
                    lambda _: user.send("hello", prefer="respond-async"), range(30)
                )
            )
    finally:
        two_webs.stack.start("redis")

    assert guesses == [401] * GUESSES + [429]
    assert sends == {202: 20, 429: 10}
    two_webs.at_rest()


def test_as_shipped_the_eleventh_guess_is_refused_whatever_address_it_claims() -> None:
    with (
        tempfile.TemporaryDirectory(prefix="chatledger-") as folder,
        Embedded(Path(folder)) as service,
    ):
        alice = register(service.url, "alice")
        answers = [
            guess(service.url, "alice", forwarded=f"192.0.2.{number}")
            for number in range(GUESSES + 1)
        ]
        assert [answer.status_code for answer in answers] == [401] * GUESSES + [429]
        assert 0 < int(answers[-1].headers["Retry-After"]) <= 300
        # Whoever is logged in is not disturbed, and neither is anybody else.
        assert alice.send("hello").status_code == 201
        register(service.url, "bob")
