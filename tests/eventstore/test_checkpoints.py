"""Checkpoints: what they sign, by vectors made without this code, and how they are read."""

import json
from pathlib import Path
from typing import Any

import pytest
from django.db import connection

from eventstore.models import SealKey
from eventstore.seals.checkpoints import (
    Checkpoint,
    checkpoint_over,
    checkpoints_before,
    latest,
    public_keys,
    read_checkpoint,
)
from eventstore.seals.signing import Signatures, Signer, key_id_of

VECTORS: dict[str, Any] = json.loads(
    Path(__file__).with_name("checkpoint_vectors.json").read_text(encoding="utf-8")
)
SIGNER = Signer(bytes.fromhex(VECTORS["seed"]))


def made(vector: dict[str, Any]) -> Checkpoint:
    return Checkpoint(
        number=vector["number"],
        first=vector["first"],
        last=vector["last"],
        root=bytes.fromhex(vector["root"]),
        leaves=bytes(32 * (vector["last"] - vector["first"] + 1)),
        previous=bytes.fromhex(vector["previous"]),
        at=vector["at"],
        key_id=vector["key_id"],
        signature=bytes.fromhex(vector["signature"]),
    )


ALL = [made(vector) for vector in VECTORS["checkpoints"]]


@pytest.mark.parametrize("vector", VECTORS["checkpoints"], ids=lambda each: each["number"])
def test_a_checkpoint_signs_what_is_committed_byte_for_byte(vector: dict[str, Any]) -> None:
    checkpoint = made(vector)
    assert checkpoint.message.hex() == vector["message"]
    assert checkpoint.hash.hex() == vector["hash"]
    assert SIGNER.sign(checkpoint.message).hex() == vector["signature"]


def test_a_key_is_named_by_its_own_hash() -> None:
    assert SIGNER.public_key.hex() == VECTORS["public_key"]
    assert SIGNER.key_id == key_id_of(SIGNER.public_key) == VECTORS["checkpoints"][0]["key_id"]


def test_a_signature_is_that_of_one_key_and_one_message() -> None:
    signatures = Signatures({SIGNER.key_id: SIGNER.public_key})
    first, second, _ = ALL
    assert signatures.are_of(SIGNER.key_id, first.message, first.signature)
    assert not signatures.are_of(SIGNER.key_id, second.message, first.signature)
    assert not signatures.are_of(SIGNER.key_id, first.message, b"short")
    assert not signatures.are_of("another key", first.message, first.signature)


def test_a_checkpoint_reads_in_json_as_it_is_kept_elsewhere() -> None:
    vector = VECTORS["checkpoints"][1]
    shown = ALL[1].as_json()
    assert shown.pop("signature").endswith("==")
    assert shown == {
        "number": 2,
        "first": 2,
        "last": 4,
        "root": vector["root"],
        "previous": vector["previous"],
        "at": "2026-01-01T00:00:01.000002Z",
        "key_id": vector["key_id"],
        "hash": vector["hash"],
    }


@pytest.mark.django_db(transaction=True)
class TestReading:
    @pytest.fixture(autouse=True)
    def stored(self) -> None:
        with connection.cursor() as cursor:
            cursor.executemany(
                "INSERT INTO eventstore_checkpoint (number, first, last, root, leaves, previous,"
                " at, key_id, signature) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s)",
                [[getattr(each, name) for name in Checkpoint.__slots__] for each in ALL],
            )
        SealKey.objects.create(id=SIGNER.key_id, public_key=SIGNER.public_key)

    def test_checkpoints_come_back_as_they_were_stored(self) -> None:
        assert [read_checkpoint(number) for number in (1, 2, 3)] == ALL
        assert read_checkpoint(4) is None
        assert latest() == ALL[-1]

    def test_the_checkpoint_over_an_event_is_found_by_its_position(self) -> None:
        assert [checkpoint_over(position) for position in (0, 1, 2, 4, 5, 11, 12)] == [
            *(None, ALL[0], ALL[1], ALL[1], ALL[2], ALL[2], None)
        ]

    def test_a_page_comes_newest_first_and_without_leaves(self) -> None:
        assert [each.number for each in checkpoints_before(None, 2)] == [3, 2]
        (first,) = checkpoints_before(2, 10)
        assert (first.hash, first.leaves, first.size) == (ALL[0].hash, b"", 1)

    def test_the_public_keys_are_found_by_their_ids(self) -> None:
        assert public_keys() == {SIGNER.key_id: SIGNER.public_key}


@pytest.mark.django_db(transaction=True)
def test_before_the_first_checkpoint_there_is_none() -> None:
    assert latest() is None
    assert checkpoints_before(None, 10) == []
