"""The bytes that a seal covers: fixed for ever, by vectors made without this code."""

import json
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from eventstore.seals import leaf
from eventstore.seals.merkle import leaf_hash

VECTORS: list[dict[str, Any]] = json.loads(
    Path(__file__).with_name("leaf_vectors.json").read_text(encoding="utf-8")
)
IDS = [vector["name"] for vector in VECTORS]


def encoded(event: dict[str, Any]) -> bytes:
    """The event of a vector, encoded by the code under test."""
    causation_id = event["causation_id"]
    return leaf.encode(
        position=event["position"],
        stream_id=UUID(event["stream_id"]).bytes,
        version=event["version"],
        topic=event["topic"].encode(),
        data=bytes.fromhex(event["data"]),
        at=event["at"],
        event_id=UUID(event["event_id"]).bytes,
        actor=event["actor"].encode(),
        request_id=event["request_id"].encode(),
        causation_id=None if causation_id is None else UUID(causation_id).bytes,
    )


@pytest.mark.parametrize("vector", VECTORS, ids=IDS)
def test_an_event_is_encoded_byte_for_byte_as_committed(vector: dict[str, Any]) -> None:
    assert encoded(vector["event"]).hex() == vector["encoded"]
    assert leaf_hash(encoded(vector["event"])).hex() == vector["leaf_hash"]


def test_no_two_events_have_the_same_bytes() -> None:
    assert len({encoded(vector["event"]) for vector in VECTORS}) == len(VECTORS)


@pytest.mark.parametrize("column", VECTORS[0]["event"])
def test_every_column_is_covered(column: str) -> None:
    event = next(each["event"] for each in VECTORS if each["name"] == "with a causation id")
    others = {
        "data": "7b7d",
        "stream_id": str(UUID(int=7)),
        "event_id": str(UUID(int=7)),
        "causation_id": str(UUID(int=7)),
        "position": 7,
        "version": 7,
        "at": 7,
    }
    assert encoded(event | {column: others.get(column, "other")}) != encoded(event)
