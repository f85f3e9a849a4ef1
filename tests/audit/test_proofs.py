"""Proofs: what leads up to the signed root, and what anybody finds who checks them."""

import copy
import importlib.util
import json
import subprocess
import sys
from base64 import b64decode, b64encode
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any
from uuid import uuid4

import pytest
from django.db import DatabaseError, connection

from audit.proofs import EventNotFound, NotSealedYet, SealDamaged, list_keys, prove
from eventstore.instants import rfc3339
from eventstore.models import CheckpointRecord, EventRecord
from eventstore.seals.checkpoints import read_checkpoint
from tests.audit.checking import SCRIPT, check
from tests.eventstore.sealing import OTHER_SIGNER, SIGNER, fill, seal

pytestmark = pytest.mark.django_db
KEY = SIGNER.public_key.hex()
LAST = 21
PROVED = 13


@pytest.fixture
def log() -> None:
    """21 sealed events."""
    fill(LAST)
    seal()


@pytest.fixture(scope="module")
def script() -> ModuleType:
    """The script as a module: a process for each of many proofs would take minutes."""
    spec = importlib.util.spec_from_file_location("check_proof", SCRIPT)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def refusal(script: ModuleType, proof: Any, tmp_path: Path) -> str | None:
    """What the script says against a proof, None if it believes it."""
    file = tmp_path / "proof.json"
    file.write_text(json.dumps(proof))
    said = None
    try:
        script.main(str(file), KEY)
    except SystemExit as refused:
        said = refused.code
    assert said is None or isinstance(said, str)
    return said


@pytest.mark.parametrize("count", [1, 2, 3, 7, 8, 1000, 1001])
def test_every_event_of_a_tree_of_any_size_is_proved(
    script: ModuleType, tmp_path: Path, count: int
) -> None:
    fill(count)
    seal()
    some = {1, 2, count // 2, count - 1, count} if count > 8 else set(range(1, count + 1))
    for position in some:
        proof = prove(position)
        assert refusal(script, proof, tmp_path) is None
        assert len(proof["path"]) <= 10


@pytest.mark.usefixtures("log")
def test_the_script_says_what_was_proved(tmp_path: Path) -> None:
    event = prove(PROVED)["event"]
    at = rfc3339(event["at"])
    keys = tmp_path / "keys.json"
    keys.write_text(json.dumps(list_keys()))
    for given in (keys, KEY, KEY.upper()):
        result = check(json.dumps(prove(PROVED)), given)
        assert (result.returncode, result.stderr) == (0, "")
        said = f"{event['topic']!r} of stream {event['stream_id']} at {at}"
        assert result.stdout == f"OK: checkpoint 1 seals event {PROVED}, {said}\n"


def leaves_of(value: Any, *way: Any) -> Iterator[tuple[Any, ...]]:
    """The way to each value that is no object or list."""
    if isinstance(value, dict):
        for name in value:
            yield from leaves_of(value[name], *way, name)
    elif isinstance(value, list):
        for index in range(len(value)):
            yield from leaves_of(value[index], *way, index)
    else:
        yield way


def at(value: Any, way: Sequence[Any]) -> Any:
    """What stands at the end of the way."""
    for step in way:
        value = value[step]
    return value


def altered(name: object, value: Any) -> list[Any]:
    """Other values in a field's own form, and none at all."""
    if value is None:
        return [str(uuid4()), ""]
    if isinstance(value, int):
        return [
            float(value),
            bool(value),
            value + 1,
            value - 1,
            -value - 1,
            2**63,
            str(value),
            None,
            0.5,
        ]
    if name in ("data", "signature"):
        raw = bytearray(b64decode(value))
        flipped = []
        for index in (0, len(raw) // 2, len(raw) - 1):
            raw[index] ^= 1
            flipped.append(b64encode(raw).decode())
            raw[index] ^= 1
        return [
            *flipped,
            value + "\n",
            b64encode(bytes(raw[:-1])).decode(),
            value + "AAAA",
            "",
            "%",
            None,
        ]
    if name == "at":
        offset = value[:-1] + "+00:00"
        return [
            value[:-1] + "9Z",
            offset,
            " " + value,
            value.replace("2026", "2025"),
            value[:-1],
            value[:-4] + "Z",
            "",
            None,
        ]
    last = "1" if value[-1:] != "1" else "2"
    other = [value.upper(), "{" + value + "}", value.replace("-", "")]
    return [
        *(each for each in other if each != value),
        value[:-1] + last,
        value + "00",
        value[:-2],
        "",
        None,
        7,
    ]


@pytest.mark.usefixtures("log")
def test_every_field_that_is_altered_is_refused(script: ModuleType, tmp_path: Path) -> None:
    proof = prove(PROVED)
    fields = list(leaves_of(proof))
    assert len(fields) == 10 + 2 + len(proof["path"]) + 9
    for *way, name in fields:
        for other in altered(name, at(proof, way)[name]):
            changed = copy.deepcopy(proof)
            at(changed, way)[name] = other
            said = refusal(script, changed, tmp_path)
            assert said is not None, (way, name, other)
            assert said.startswith("NOT PROVED: ")
            assert "\n" not in said


@pytest.mark.usefixtures("log")
def test_what_is_left_out_or_put_in_is_refused(script: ModuleType, tmp_path: Path) -> None:
    proof = prove(PROVED)
    for *way, name in leaves_of(proof):
        changed = copy.deepcopy(proof)
        del at(changed, way)[name]
        assert refusal(script, changed, tmp_path)
    path = proof["path"]
    for other in (path[:-1], path[1:], [*path, path[0]], path[::-1], [], path[0]):
        assert refusal(script, proof | {"path": other}, tmp_path)
    nothings: list[Any] = [None, [], {}, 7, "x", [proof]]
    for nonsense in nothings:
        assert refusal(script, nonsense, tmp_path)


@pytest.mark.usefixtures("log")
def test_what_the_seal_does_not_cover_may_not_stand_beside_it(
    script: ModuleType, tmp_path: Path
) -> None:
    proof = prove(PROVED)
    for part in (proof, proof["event"], proof["checkpoint"]):
        part["amount"] = 9_000_000
        assert "other fields" in str(refusal(script, proof, tmp_path))
        del part["amount"]
    assert refusal(script, proof, tmp_path) is None


@pytest.mark.usefixtures("log")
def test_what_json_says_twice_or_too_deep_is_refused_in_one_line() -> None:
    proof = json.dumps(prove(PROVED))
    for forged in (
        proof.replace('{"event": {', '{"event": {"topic": "forged"}, "event": {', 1),
        proof.replace('"actor": ', '"actor": "user:mallory", "actor": ', 1),
        "[" * 200_000,
        proof.replace('"path": [', '"path": [' + "[" * 200_000, 1),
    ):
        result = check(forged, KEY)
        assert (result.returncode, result.stdout) == (1, "")
        assert result.stderr.startswith("NOT PROVED: ")
        assert len(result.stderr.splitlines()) == 1


@pytest.mark.usefixtures("log")
def test_the_proof_of_one_event_is_none_of_another(script: ModuleType, tmp_path: Path) -> None:
    one, other = prove(PROVED), prove(PROVED + 1)
    for part in ("event", "leaf_hash", "index", "path"):
        assert refusal(script, one | {part: other[part]}, tmp_path)
    # Not even a node of the tree passes for an event that somebody made up.
    assert refusal(script, one | {"index": 0, "path": one["path"][1:]}, tmp_path)


@pytest.mark.usefixtures("log")
def test_another_key_is_refused(tmp_path: Path) -> None:
    proof = json.dumps(prove(PROVED))
    others = tmp_path / "keys.json"
    others.write_text(json.dumps([{"public_key": b64encode(OTHER_SIGNER.public_key).decode()}]))
    for keys in (OTHER_SIGNER.public_key.hex(), others, KEY[:-2], "", "no-such-file.json"):
        result = check(proof, keys)
        assert result.returncode == 1
        assert result.stdout == ""
        assert len(result.stderr.splitlines()) == 1


@pytest.mark.usefixtures("log")
def test_a_seal_that_somebody_else_signed_in_our_name_is_refused(
    script: ModuleType, tmp_path: Path
) -> None:
    proof = prove(PROVED)
    checkpoint = read_checkpoint(1)
    assert checkpoint
    forged = b64encode(OTHER_SIGNER.sign(checkpoint.message)).decode()
    proof["checkpoint"]["signature"] = forged
    assert "signature is not of this key" in str(refusal(script, proof, tmp_path))


def test_without_its_arguments_the_script_says_how_it_is_used() -> None:
    result = subprocess.run([sys.executable, SCRIPT], capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert "check_proof.py proof.json keys.json" in result.stderr


# What was changed in the database


@pytest.mark.usefixtures("log")
@pytest.mark.parametrize(
    "change",
    [
        {"data": b'{"amount":1}'},
        {"topic": "chatledger.accounts.TokensGranted"},
        {"version": 99},
        {"at": 1},
        {"at": 2**62},
        {"actor": "user:mallory"},
        {"actor": ""},
        {"request_id": "other"},
        {"event_id": uuid4()},
        {"stream_id": uuid4()},
        {"causation_id": uuid4()},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_changed_row_is_shown_as_it_is_and_its_proof_fails(
    script: ModuleType, tmp_path: Path, change: dict[str, Any]
) -> None:
    before = prove(PROVED)
    EventRecord.objects.filter(position=PROVED).update(**change)
    proof = prove(PROVED)
    assert proof["event"] != before["event"]
    assert proof["leaf_hash"] != before["leaf_hash"]
    assert proof["path"] == before["path"]
    assert refusal(script, proof, tmp_path) == "NOT PROVED: its path leads to another root"
    # The neighbours lose nothing: their path goes by the leaves that were sealed.
    for neighbour in (PROVED - 1, PROVED + 1):
        assert refusal(script, prove(neighbour), tmp_path) is None


@pytest.mark.usefixtures("log")
def test_swapped_rows_are_not_proved(script: ModuleType, tmp_path: Path) -> None:
    one, other = PROVED, PROVED + 3
    for here, there in ((one, -1), (other, one), (-1, other)):
        EventRecord.objects.filter(position=here).update(position=there)
    for position in (one, other):
        assert refusal(script, prove(position), tmp_path)


@pytest.mark.usefixtures("log")
def test_a_changed_leaf_helps_nobody(script: ModuleType, tmp_path: Path) -> None:
    EventRecord.objects.filter(position=PROVED).update(actor="user:mallory")
    forged = bytes.fromhex(prove(PROVED)["leaf_hash"])
    record = CheckpointRecord.objects.get()
    leaves = bytearray(record.leaves)
    leaves[(PROVED - 1) * 32 : PROVED * 32] = forged
    record.leaves = bytes(leaves)
    record.save()
    for position in (PROVED, PROVED + 1, PROVED - 1, 1, LAST):
        assert refusal(script, prove(position), tmp_path), position


@pytest.mark.usefixtures("log")
def test_an_event_that_was_removed_is_missed() -> None:
    EventRecord.objects.filter(position=PROVED).delete()
    with pytest.raises(EventNotFound, match=r"13, although checkpoint 1 seals one\.$"):
        prove(PROVED)


@pytest.mark.usefixtures("log")
@pytest.mark.parametrize("position", [0, LAST + 1, 2**63 - 1, 2**63, 2**200])
def test_where_nothing_was_there_is_no_proof(position: int) -> None:
    with pytest.raises(EventNotFound, match=rf"^No event is stored at position {position}\.$"):
        prove(position)


@pytest.mark.usefixtures("log")
def test_behind_the_last_seal_there_is_no_proof_yet() -> None:
    fill(1, seed=5)
    with pytest.raises(NotSealedYet):
        prove(LAST + 1)
    seal()
    assert prove(LAST + 1)["checkpoint"]["number"] == 2


def test_before_the_first_seal_there_is_no_proof_yet() -> None:
    fill(1)
    with pytest.raises(NotSealedYet):
        prove(1)


@pytest.mark.usefixtures("log")
def test_a_hole_in_the_seals_is_no_matter_of_time() -> None:
    fill(1, seed=5)
    seal()
    CheckpointRecord.objects.filter(number=1).delete()
    with pytest.raises(SealDamaged, match="although a later one is sealed"):
        prove(PROVED)


@pytest.mark.usefixtures("log")
@pytest.mark.parametrize("change", [{"leaves": b""}, {"leaves": b"x" * 33}, {"at": 2**62}])
def test_a_damaged_checkpoint_is_said_to_be_one(change: dict[str, Any]) -> None:
    CheckpointRecord.objects.update(**change)
    with pytest.raises(SealDamaged, match=r"^The checkpoint over position 13 "):
        prove(PROVED)


@pytest.mark.usefixtures("log")
@pytest.mark.parametrize(
    "change",
    [
        "stream_id = 'no id'",
        "event_id = 7",
        "at = 'x'",
        "topic = CAST(CAST(x'ff' AS BLOB) AS TEXT)",
        "actor = CAST(x'00' AS BLOB)",
        "data = CAST('text' AS TEXT)",
    ],
)
def test_a_row_that_only_sqlite_can_hold_is_said_to_be_damaged(change: str) -> None:
    statement = f"UPDATE eventstore_event SET {change} WHERE position = {PROVED}"
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            with pytest.raises(DatabaseError):
                cursor.execute(statement)
            return
        cursor.execute(statement)
    with pytest.raises(SealDamaged, match=r"^The row at position 13 "):
        prove(PROVED)
