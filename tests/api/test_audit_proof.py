"""`GET /audit/events/{position}/proof/`"""

import json
from base64 import b64decode
from pathlib import Path

import pytest

from eventstore.models import EventRecord
from eventstore.reading import max_position
from tests.api.auditing import sealed
from tests.api.client import Api, User, assert_problem
from tests.audit.checking import check


def path_of(position: object) -> str:
    return f"/audit/events/{position}/proof/"


def test_a_proof_shows_the_event_as_it_is_stored(api: Api, staff: User) -> None:
    api.send(staff, "hello")
    sealed()
    record = EventRecord.objects.filter(topic__endswith="MessageSent").latest("position")
    proof = api.get(path_of(record.position), staff).json()
    assert b64decode(proof["event"].pop("data")) == bytes(record.data)
    assert proof["event"] == {
        "position": record.position,
        "stream_id": str(record.stream_id),
        "version": record.version,
        "topic": record.topic,
        "at": record.at,
        "event_id": str(record.event_id),
        "actor": f"user:{staff.id}",
        "request_id": record.request_id,
        "causation_id": None,
    }
    seal = proof["checkpoint"]
    assert seal["first"] <= record.position <= seal["last"]
    assert proof["index"] == record.position - seal["first"]


def test_every_event_is_proved_to_who_has_only_the_key(
    api: Api, staff: User, tmp_path: Path
) -> None:
    api.send(staff, "hello")
    last = sealed()
    keys = tmp_path / "keys.json"
    keys.write_text(api.get("/audit/keys/", staff).text)
    for position in (1, last - 2, last - 1, last):
        proof = api.get(path_of(position), staff)
        assert proof.status_code == 200
        result = check(proof.text, keys)
        assert result.returncode == 0, result.stderr
        number = proof.json()["checkpoint"]["number"]
        assert result.stdout.startswith(f"OK: checkpoint {number} seals event {position}, ")


def test_an_event_that_is_not_sealed_yet_is_a_problem_for_a_second(
    api: Api, staff: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("eventstore.seals.checkpoints.checkpoint_over", lambda position: None)
    monkeypatch.setattr("eventstore.seals.checkpoints.latest", lambda: None)
    answer = api.get(path_of(1), staff)
    assert_problem(answer, 503, "not-sealed-yet")
    assert answer.headers["retry-after"] == "1"


def test_a_row_that_was_changed_is_shown_as_it_is_and_not_proved(
    api: Api, staff: User, tmp_path: Path
) -> None:
    api.send(staff, "hello")
    sealed()
    keys = tmp_path / "keys.json"
    keys.write_text(api.get("/audit/keys/", staff).text)
    record = EventRecord.objects.filter(topic__endswith="TokensDebited").latest("position")
    whole = bytes(record.data)
    record.data = whole.replace(b"100", b"001")
    record.save()
    try:
        proof = api.get(path_of(record.position), staff)
    finally:
        record.data = whole
        record.save()
    assert b64decode(proof.json()["event"]["data"]) != whole
    result = check(proof.text, keys)
    assert result.returncode == 1
    assert result.stderr == "NOT PROVED: its path leads to another root\n"
    # Nor does it help to show the bytes that were sealed beside the hash of those that are there.
    mended = json.loads(proof.text)
    mended["event"] = api.get(path_of(record.position), staff).json()["event"]
    assert check(json.dumps(mended), keys).returncode == 1


@pytest.mark.parametrize("position", [0, 2**62, 2**63, 2**64, "9" * 4_000])
def test_where_nothing_is_stored_there_is_no_proof(api: Api, staff: User, position: object) -> None:
    assert_problem(api.get(path_of(position), staff), 404, "not-found")


@pytest.mark.parametrize("position", ["-1", "x", "1.5", "", "9" * 5_000, "1%00"])
def test_what_is_no_position_is_no_address(api: Api, staff: User, position: str) -> None:
    assert api.get(path_of(position), staff).status_code == 404


def test_it_is_for_staff(api: Api, alice: User) -> None:
    for position in (1, max_position(), 2**62):
        assert_problem(api.get(path_of(position), alice), 403, "staff-only")
        assert_problem(api.get(path_of(position)), 401, "not-authenticated")
