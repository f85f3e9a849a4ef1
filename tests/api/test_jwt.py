"""`Authorization: Bearer`: which JWTs are believed."""

import base64
import hashlib
import hmac
import json
import time
from random import Random
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import jwt
import pytest
from django.conf import settings as django_settings
from pytest_django import Settings

from accounts.jwt_auth import JWT_BYTES_MAX, authenticate_jwt
from accounts.models import Credential
from tests.api.client import Api, User, assert_problem

SEED = 7519


def good_claims(user: User) -> dict[str, Any]:
    now = int(time.time())
    return {
        "iss": "chatledger",
        "aud": "chatledger",
        "use": "login",
        "sub": user.id,
        "jti": uuid4().hex,
        "iat": now,
        "exp": now + 60,
        "epoch": 0,
    }


def sign(claims: dict[str, Any], key: bytes | None = None, **header: Any) -> str:
    return jwt.encode(claims, key or django_settings.JWT_SIGNING_KEY, "HS256", headers=header)


def base64url(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


def sign_by_hand(header: bytes, payload: bytes) -> str:
    head = f"{base64url(header)}.{base64url(payload)}"
    digest = hmac.new(django_settings.JWT_SIGNING_KEY, head.encode(), hashlib.sha256).digest()
    return f"{head}.{base64url(digest)}"


def ask(api: Api, token: str) -> Any:
    return api.get("/token/", headers={"Authorization": f"Bearer {token}"})


def assert_refused(api: Api, token: str) -> None:
    answer = ask(api, token)
    assert_problem(answer, 401, "not-authenticated")
    assert answer.headers["www-authenticate"] == 'Bearer error="invalid_token"'


def test_a_good_jwt_is_believed(api: Api, alice: User) -> None:
    assert ask(api, sign(good_claims(alice))).status_code == 200


@pytest.mark.parametrize("scheme", ["bearer", "BEARER", "Bearer "])
def test_the_scheme_may_be_written_in_any_case(api: Api, alice: User, scheme: str) -> None:
    headers = {"Authorization": f"{scheme} {alice.jwt}"}
    assert api.get("/token/", headers=headers).status_code == 200


@pytest.mark.parametrize("header", ["", "Bearer", "Basic YTpi", "Token x", "xyz"])
def test_without_a_jwt_nothing_is_said_about_one(api: Api, header: str) -> None:
    answer = api.get("/token/", headers={"Authorization": header})
    assert_problem(answer, 401, "not-authenticated")
    assert answer.headers["www-authenticate"] == "Bearer"


def test_every_refusal_has_one_body(api: Api, alice: User) -> None:
    tokens = ["x", alice.jwt[:-4], sign(good_claims(alice), b"k" * 32), "x" * 5_000]
    documents = [assert_problem(ask(api, token), 401, "not-authenticated") for token in tokens]
    documents.append(assert_problem(api.get("/token/"), 401, "not-authenticated"))
    for document in documents:
        del document["request_id"]
        assert document == documents[0]


@pytest.mark.parametrize(
    "change",
    [
        {"exp": 1},
        {"exp": int(time.time()) - 1},
        {"exp": "soon"},
        {"iat": int(time.time()) + 600},
        {"iat": "now"},
        {"iat": True},
        {"nbf": int(time.time()) + 600},
        {"aud": "somebody-else"},
        {"aud": ["chatledger"]},
        {"iss": "somebody-else"},
        {"use": "refresh"},
        {"use": ["login"]},
        {"sub": "alice"},
        {"sub": str(uuid4())},
        {"sub": 7},
        {"jti": 7},
        {"epoch": 1},
        {"epoch": -1},
        {"epoch": "0"},
        {"epoch": False},
        {"epoch": 0.0},
    ],
)
def test_a_wrong_claim_is_refused(api: Api, alice: User, change: dict[str, Any]) -> None:
    header = b'{"alg":"HS256","typ":"JWT"}'
    claims = json.dumps(good_claims(alice) | change).encode()
    assert_refused(api, sign_by_hand(header, claims))


@pytest.mark.parametrize("claim", ["exp", "iat", "sub", "jti", "aud", "iss", "use", "epoch"])
def test_a_missing_claim_is_refused(api: Api, alice: User, claim: str) -> None:
    claims = good_claims(alice)
    del claims[claim]
    assert_refused(api, sign(claims))
    assert_refused(api, sign(good_claims(alice) | {claim: None} if claim != "iss" else claims))


def test_another_hosts_clock_may_be_a_little_ahead(api: Api, alice: User) -> None:
    ahead = sign(good_claims(alice) | {"iat": int(time.time()) + 2})
    assert ask(api, ahead).status_code == 200


def test_only_our_algorithm_is_believed(api: Api, alice: User) -> None:
    claims, key = good_claims(alice), django_settings.JWT_SIGNING_KEY
    assert_refused(api, jwt.encode(claims, "", "none"))
    for algorithm in ("HS384", "HS512"):
        assert_refused(api, jwt.encode(claims, key * 2, algorithm))
    payload = json.dumps(claims).encode()
    for name in (b"none", b"None", b"nOnE", b"HS512", b"hs256", b"", b"RS256"):
        header = b'{"alg":"%s"}' % name
        assert_refused(api, sign_by_hand(header, payload))
        assert_refused(api, f"{base64url(header)}.{base64url(payload)}.")


def test_a_key_in_the_header_is_not_looked_at(api: Api, alice: User) -> None:
    own_key = b"k" * 32
    jwk = {"kty": "oct", "k": base64url(own_key)}
    for header in (
        {"jwk": jwk},
        {"kid": "../../dev/null"},
        {"kid": "' UNION SELECT 'k"},
        {"jku": "http://localhost:1/keys"},
        {"x5u": "http://localhost:1/cert"},
    ):
        assert_refused(api, sign(good_claims(alice), own_key, **header))


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"{",
        b"[]",
        b'"HS256"',
        b"null",
        b'{"alg":["HS256"]}',
        b'{"alg":{"HS256":1}}',
        b'{"alg":null}',
        b'{"alg":"HS256","kid":7}',
        b'{"alg":"HS256","crit":["exp"]}',
        b'{"alg":"HS256","b64":false,"crit":["b64"]}',
        b"[" * 2_000,
        b'{"alg":"HS256","x":' + b"1" * 2_000 + b"}",
        b"\xff\xfe",
    ],
)
def test_a_strange_header_is_refused(api: Api, alice: User, header: bytes) -> None:
    token = sign_by_hand(header, json.dumps(good_claims(alice)).encode())
    allowed = header.startswith(b'{"alg":"HS256","x"')
    assert ask(api, token).status_code == (200 if allowed else 401)


@pytest.mark.parametrize("payload", [b"", b"{", b"[]", b"null", b'"x"', b"[" * 2_000, b"\xff"])
def test_a_strange_payload_is_refused(api: Api, payload: bytes) -> None:
    assert_refused(api, sign_by_hand(b'{"alg":"HS256"}', payload))


def test_every_truncated_or_bent_jwt_is_refused(api: Api, alice: User) -> None:
    for cut in range(1, len(alice.jwt), 7):
        assert_refused(api, alice.jwt[:cut])
    header, payload, signature = alice.jwt.split(".")
    for bent in (
        f"{header}.{payload}",
        f"{header}.{payload}.{signature}.x",
        f"{header}..{signature}",
        f"..{signature}",
        "..",
        f"{header}.{payload}.{signature[:-2]}AA",
        f"{alice.jwt},{alice.jwt}",
        f"{alice.jwt} x",
        alice.jwt.upper(),
    ):
        assert_refused(api, bent)


def test_a_jwt_that_is_too_long_is_not_even_looked_at(
    api: Api, alice: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = sign(good_claims(alice) | {"filler": "x" * JWT_BYTES_MAX})

    def never(token: str, keys: object) -> None:
        raise AssertionError("it was looked at")

    monkeypatch.setattr("accounts.jwt_auth._decode", never)
    assert_refused(api, long)


def test_a_jwt_of_a_previous_key_is_believed_while_that_is_configured(
    api: Api, alice: User, settings: Settings
) -> None:
    old_key, older_key = b"o" * 32, b"p" * 32
    tokens = [sign(good_claims(alice), key) for key in (old_key, older_key)]
    for token in tokens:
        assert_refused(api, token)
    settings.JWT_SIGNING_KEYS_PREVIOUS = (old_key, older_key)
    for token in (*tokens, alice.jwt):
        assert ask(api, token).status_code == 200
    assert_refused(api, sign(good_claims(alice), b"q" * 32))
    expired = sign(good_claims(alice) | {"exp": 1}, older_key)
    assert_refused(api, expired)


def test_a_jwt_that_was_believed_expires_all_the_same(
    api: Api, alice: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = sign(good_claims(alice))
    assert ask(api, token).status_code == 200
    later = time.time() + 61
    monkeypatch.setattr("accounts.jwt_auth.time", SimpleNamespace(time=lambda: later))
    assert_refused(api, token)


def test_a_deactivated_account_is_refused_at_the_next_request(api: Api, alice: User) -> None:
    Credential.objects.filter(user_id=alice.id).update(active=False)
    assert_refused(api, alice.jwt)


def test_any_text_is_no_jwt(server: str) -> None:
    random = Random(SEED)
    for _ in range(500):
        characters = [chr(random.randrange(1, 256)) for _ in range(random.randrange(200))]
        assert authenticate_jwt("".join(characters)) is None


def test_any_signed_bytes_are_no_jwt(server: str) -> None:
    random = Random(SEED)
    for _ in range(500):
        payload = random.randbytes(random.randrange(100))
        assert authenticate_jwt(sign_by_hand(random.randbytes(20), payload)) is None
        assert authenticate_jwt(sign_by_hand(b'{"alg":"HS256"}', payload)) is None
