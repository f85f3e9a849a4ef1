"""Rounds of the simulation: each has a seed of its own, by which it can be run again alone."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import hypothesis
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.simulation.database import Databases
from tests.simulation.machine import Simulation
from tests.simulation.operations import OPERATIONS

SEED = 20_261_122
#: A round: so many worlds, and so many steps in each. The first ones are hypothesis' simplest. What
#: fails is soon run again.
WORLDS, STEPS = 24, 400
SEED_VARIABLE = "CHATLEDGER_SEED"


def first_seed() -> int:
    """The seed of the first round; each after it has the next one."""
    return int(os.environ.get(SEED_VARIABLE, SEED))


@dataclass(frozen=True)
class Round:
    """A round that found nothing: what was done in it."""

    seed: int
    done: dict[str, int]

    @property
    def operations(self) -> int:
        """All that had something to be about; others' that came between are counted too."""
        return sum(self.done.get(name, 0) for name in OPERATIONS)


@contextmanager
def simulated() -> Iterator[None]:
    """The database of the rounds in the block."""
    Simulation.databases = Databases()
    try:
        yield
    finally:
        Simulation.databases.close()


def run(seed: int, *, worlds: int = WORLDS, shrinking: bool = True) -> Round:
    """One round. What it finds is raised, shrunk, with how to run it again."""
    Simulation.done.clear()
    phases = [Phase.generate, Phase.shrink] if shrinking else [Phase.generate]
    chosen = settings(
        max_examples=worlds,
        stateful_step_count=STEPS,
        phases=phases,
        database=None,
        deadline=None,
        # One failure is one violation, not a group of them.
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
    )
    machine = cast("Any", hypothesis.seed(seed)(_machine))
    try:
        run_state_machine_as_test(machine, settings=chosen)
    except BaseException as error:
        again = f"{SEED_VARIABLE}={seed} .venv/bin/python -m tests.simulation 1 {worlds}"
        error.add_note(f"again: {again}")
        raise
    return Round(seed, dict(Simulation.done))


def _machine() -> Any:
    return Simulation()
