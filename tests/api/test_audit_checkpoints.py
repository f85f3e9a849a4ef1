"""`GET /audit/checkpoints/` and `GET /audit/keys/`"""

from base64 import b64decode
from hashlib import sha256
from itertools import pairwise
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from eventstore.models import CheckpointRecord
from eventstore.seals.checkpoints import read_checkpoint
from tests.api.auditing import sealed
from tests.api.client import Api, User, assert_problem, places

PATH = "/audit/checkpoints/"
#: As many as these tests need.
SOME = 3


@pytest.fixture
def chain(api: Api, staff: User) -> list[dict[str, Any]]:
    """All checkpoints, newest first; there are some."""
    while CheckpointRecord.objects.count() < SOME:
        api.send(staff, "hello")
        sealed()
    found: list[dict[str, Any]] = api.get(PATH, staff, params={"limit": 1000}).json()
    return found


def test_they_come_newest_first_and_form_a_chain(chain: list[dict[str, Any]]) -> None:
    assert [one["number"] for one in chain] == list(range(len(chain), 0, -1))
    for newer, older in pairwise(chain):
        assert newer["previous"] == older["hash"]
        assert newer["first"] == older["last"] + 1
    assert chain[-1]["first"] == 1
    assert chain[-1]["previous"] == "0" * 64


def test_each_is_what_is_stored(chain: list[dict[str, Any]]) -> None:
    for shown in chain:
        stored = read_checkpoint(shown["number"])
        assert stored is not None
        assert shown == stored.as_json()


def test_each_is_signed_by_a_listed_key(api: Api, staff: User, chain: list[dict[str, Any]]) -> None:
    keys = {
        key["id"]: b64decode(key["public_key"]) for key in api.get("/audit/keys/", staff).json()
    }
    for key_id, key in keys.items():
        assert sha256(key).hexdigest()[:16] == key_id
    for shown in chain:
        stored = read_checkpoint(shown["number"])
        assert stored is not None
        signer = Ed25519PublicKey.from_public_bytes(keys[shown["key_id"]])
        signer.verify(b64decode(shown["signature"]), stored.message)


def test_pages_follow_their_links_to_the_first(
    api: Api, staff: User, chain: list[dict[str, Any]]
) -> None:
    found: list[int] = []
    path = f"{PATH}?limit=2&before={chain[0]['number']}"
    while path:
        page = api.get(path, staff)
        assert 1 <= len(page.json()) <= 2
        found += [one["number"] for one in page.json()]
        path = page.links.get("next", {}).get("url", "")
        assert len(found) < len(chain)
    assert found == [one["number"] for one in chain[1:]]


def test_before_the_first_there_is_none(api: Api, staff: User) -> None:
    page = api.get(f"{PATH}?before=1", staff)
    assert page.json() == []
    assert "link" not in page.headers


def test_one_that_this_service_did_not_write_is_a_problem(
    api: Api, staff: User, chain: list[dict[str, Any]]
) -> None:
    record = CheckpointRecord.objects.filter(number=chain[0]["number"])
    at = record.get().at
    record.update(at=2**62)
    try:
        assert_problem(api.get(PATH, staff), 503, "seal-damaged")
        assert api.get(f"{PATH}?before={chain[0]['number']}", staff).status_code == 200
    finally:
        record.update(at=at)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("limit", ["0", "-1", "1001", "ten", "", "9" * 5_000]),
        ("before", ["0", "-1", str(2**63), "ten", "", "\0", "9" * 5_000]),
    ],
)
def test_a_parameter_that_makes_no_sense_is_refused(
    api: Api, staff: User, name: str, values: list[str]
) -> None:
    for value in values:
        answer = api.get(PATH, staff, params={name: value})
        assert places(assert_problem(answer, 422, "invalid-input")) == [["query", name]]


@pytest.mark.parametrize("path", [PATH, "/audit/keys/"])
def test_it_is_for_staff(api: Api, alice: User, path: str) -> None:
    assert_problem(api.get(path, alice), 403, "staff-only")
    assert_problem(api.get(path), 401, "not-authenticated")
