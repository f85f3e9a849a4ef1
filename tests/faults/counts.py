"""How often a fault is tried, and by which dice: short by default, in full for `make faults`."""

import os
import random

#: `CHATLEDGER_FAULTS=full` tries each fault as often as the guarantees say.
FULL = os.environ.get("CHATLEDGER_FAULTS") == "full"
#: What all random choices begin with; the same seed makes the same ones again.
SEED = int(os.environ.get("CHATLEDGER_SEED") or 20261122)
#: What everybody begins with who is registered in the stack that tests share; a message costs 1.
SIGNUP_TOKENS = 100_000


def count(*, short: int, full: int) -> int:
    """How often to try a fault in this run."""
    return full if FULL else short


def seeded(name: str) -> random.Random:
    """The dice of one test, which no other test's throws change."""
    return random.Random(f"{SEED}:{name}")
