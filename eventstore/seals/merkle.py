"""Merkle trees as RFC 9162, section 2.1, defines them, with SHA-256."""

from collections.abc import Sequence
from hashlib import sha256

HASH_BYTES = 32

_LEAF = b"\x00"
_NODE = b"\x01"


def leaf_hash(data: bytes) -> bytes:
    """The hash of a leaf."""
    return sha256(_LEAF + data).digest()


def root(hashes: Sequence[bytes]) -> bytes:
    """The root of the tree over these leaf hashes."""
    if not hashes:
        return sha256().digest()
    level = hashes
    while len(level) > 1:
        level = _parents(level)
    return level[0]


def path(hashes: Sequence[bytes], index: int) -> list[bytes]:
    """The hashes that prove a leaf to be in the tree, from the leaf's neighbour up.

    `index` counts from 0; raises `IndexError` where there is no such leaf.
    """
    if not 0 <= index < len(hashes):
        raise IndexError(f"there is no leaf {index} in a tree of {len(hashes)}")
    found = []
    level = hashes
    while len(level) > 1:
        # The last of an odd number has no neighbour: it goes up as it is.
        if (neighbour := index ^ 1) < len(level):
            found.append(level[neighbour])
        level = _parents(level)
        index //= 2
    return found


def root_from_path(leaf_hash: bytes, index: int, size: int, path: Sequence[bytes]) -> bytes:
    """The root of a tree of `size` leaves in which the path leads up from this leaf.

    Raises `ValueError` when a path of that length cannot belong to that leaf.
    """
    if not 0 <= index < size:
        raise ValueError(f"there is no leaf {index} in a tree of {size}")
    node, last = leaf_hash, size - 1
    rest = iter(path)
    while last:
        if index % 2 or index < last:
            sibling = next(rest, None)
            if sibling is None:
                raise ValueError("the path is too short")
            node = _node(sibling, node) if index % 2 else _node(node, sibling)
        index //= 2
        last //= 2
    if next(rest, None) is not None:
        raise ValueError("the path is too long")
    return node


def _parents(level: Sequence[bytes]) -> list[bytes]:
    above = [
        sha256(_NODE + left + right).digest()
        for left, right in zip(level[::2], level[1::2], strict=False)
    ]
    if len(level) % 2:
        above.append(level[-1])
    return above


def _node(left: bytes, right: bytes) -> bytes:
    return sha256(_NODE + left + right).digest()
