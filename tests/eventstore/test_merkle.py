"""Merkle trees of RFC 9162, against vectors made by its own recursive definition."""

import json
from pathlib import Path
from typing import Any

import pytest

from eventstore.seals.merkle import leaf_hash, path, root, root_from_path

VECTORS: dict[str, Any] = json.loads(
    Path(__file__).with_name("checkpoint_vectors.json").read_text(encoding="utf-8")
)
LEAVES = [leaf_hash(bytes.fromhex(leaf)) for leaf in VECTORS["leaves"]]


@pytest.mark.parametrize("tree", VECTORS["trees"], ids=lambda tree: tree["size"])
def test_the_root_is_the_one_of_the_rfc(tree: dict[str, Any]) -> None:
    assert root(LEAVES[: tree["size"]]).hex() == tree["root"]


@pytest.mark.parametrize("vector", VECTORS["paths"], ids=lambda each: f"{each['index']}")
def test_a_path_is_the_one_of_the_rfc(vector: dict[str, Any]) -> None:
    assert [each.hex() for each in path(LEAVES[: vector["size"]], vector["index"])] == vector[
        "path"
    ]


def test_the_path_of_every_leaf_leads_to_the_root_and_no_other_leaf_does() -> None:
    for size in range(1, 35):
        hashes = [leaf_hash(bytes([number])) for number in range(size)]
        for index, each in enumerate(hashes):
            way = path(hashes, index)
            assert root_from_path(each, index, size, way) == root(hashes)
            assert root_from_path(leaf_hash(b"other"), index, size, way) != root(hashes)
            if way:
                with pytest.raises(ValueError, match="too short"):
                    root_from_path(each, index, size, way[:-1])
            with pytest.raises(ValueError, match="too long"):
                root_from_path(each, index, size, [*way, each])


def test_there_is_no_path_for_a_leaf_that_is_not_there() -> None:
    for index in (-1, 3):
        with pytest.raises(IndexError):
            path(LEAVES[:3], index)
        with pytest.raises(ValueError, match="no leaf"):
            root_from_path(LEAVES[0], index, 3, [])
