"""The state machine: hypothesis chooses who does what, about whom, and what befalls them."""

import random
from typing import ClassVar

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from tests.simulation import rest  # noqa: F401  (it brings an operation)
from tests.simulation.database import Databases
from tests.simulation.operations import OPERATIONS
from tests.simulation.seams import CRASH, CUT, OTHERS, Command, Fate
from tests.simulation.world import World

NUMBERS = st.integers(0, 255)
#: The farthest point at which something befalls an operation; most reach fewer.
POINT_MAX = 11
#: What others do meanwhile is one of so many things.
OTHERS_COUNT = 400
#: How often nothing befalls an operation, for each time that something may.
QUIET = 2

_given = random.Random(1)
_MEANWHILE = [
    *sorted(OPERATIONS.keys() - {"settle", "wait", "set_back"}),
    *("follow", "work", "send", "delete") * 3,
]
_others = [
    Fate(OTHERS, number % (POINT_MAX + 1), (Command(name, *_given.choices(range(256), k=2)),))
    for number, name in enumerate(_given.choices(_MEANWHILE, k=OTHERS_COUNT))
]
_fates = [
    Fate(kind, point)
    for kind in (CRASH, CUT)
    for point in range(POINT_MAX + 1)
    for _ in range(OTHERS_COUNT // (POINT_MAX + 1))
]
FATES: "st.SearchStrategy[Fate | None]" = st.sampled_from(
    [*[None] * (QUIET * 3 * OTHERS_COUNT), *_fates, *_others]
)
OWN = st.sampled_from(["begin", "register", "rename", "begin", "register"])
ONWARDS = st.sampled_from(["work", "follow", "wait"])
STAFF = st.sampled_from(["activate", "activate", "deactivate", "activate", "promote", "revoke"])
RARE = st.sampled_from(
    ["repeat", "lose", "die", "set_back", "replay", "repeat", "lose", "die", "erase", "settle"]
)


class Simulation(RuleBasedStateMachine):
    """One world from its beginning to its rest."""

    databases: ClassVar[Databases]
    #: Operations and what became of them, over all worlds of this run.
    done: ClassVar[dict[str, int]] = {}

    def __init__(self) -> None:
        super().__init__()
        self.world = World(self.databases)
        self.failed = False

    @initialize()
    def two_users(self) -> None:
        for number in range(2):
            self.do("register", number, number, None)

    @rule(a=NUMBERS, b=NUMBERS, fate=FATES)
    def send(self, a: int, b: int, fate: Fate | None) -> None:
        self.do("send", a, b, fate)

    @rule(a=NUMBERS, b=NUMBERS, fate=FATES)
    def send_together(self, a: int, b: int, fate: Fate | None) -> None:
        self.do("send_together", a, b, fate)

    @rule(a=NUMBERS, b=NUMBERS, fate=FATES)
    def work(self, a: int, b: int, fate: Fate | None) -> None:
        self.do("work", a, b, fate)

    @rule(a=NUMBERS, b=NUMBERS, fate=FATES)
    def follow(self, a: int, b: int, fate: Fate | None) -> None:
        self.do("follow", a, b, fate)

    @rule(a=NUMBERS, b=NUMBERS, fate=FATES)
    def cancel(self, a: int, b: int, fate: Fate | None) -> None:
        self.do("cancel", a, b, fate)

    @rule(a=NUMBERS, b=NUMBERS, fate=FATES)
    def grant(self, a: int, b: int, fate: Fate | None) -> None:
        self.do("grant", a, b, fate)

    @rule(name=OWN, a=NUMBERS, b=NUMBERS, fate=FATES)
    def manage(self, name: str, a: int, b: int, fate: Fate | None) -> None:
        self.do(name, a, b, fate)

    @rule(a=NUMBERS, b=NUMBERS, fate=FATES)
    def delete(self, a: int, b: int, fate: Fate | None) -> None:
        self.do("delete", a, b, fate)

    @rule(name=STAFF, a=NUMBERS, fate=FATES)
    def administer(self, name: str, a: int, fate: Fate | None) -> None:
        self.do(name, a, a, fate)

    @rule(name=ONWARDS, a=NUMBERS, b=NUMBERS, fate=FATES)
    def go_on(self, name: str, a: int, b: int, fate: Fate | None) -> None:
        self.do(name, a, b, fate)

    @rule(name=RARE, a=NUMBERS, b=NUMBERS, fate=FATES)
    def rarely(self, name: str, a: int, b: int, fate: Fate | None) -> None:
        self.do(name, a, b, None if name == "settle" else fate)

    def do(self, name: str, a: int, b: int, fate: Fate | None) -> None:
        try:
            self.world.do(Command(name, a, b), fate)
        except BaseException:
            self.failed = True
            raise

    def teardown(self) -> None:
        world = self.world
        try:
            if not self.failed:
                world.do(Command("settle", 0, len(world.ledger.messages)))
        finally:
            world.close()
            for counted in (world.operations, world.answers, world.seams.happened):
                for name, number in counted.items():
                    self.done[name] = self.done.get(name, 0) + number
