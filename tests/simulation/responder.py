"""The simulated responder: it does what its script says, a line at a time."""

from collections.abc import Callable
from dataclasses import dataclass

from conversations.domain import Usage
from conversations.responders import DeadlinePassed, Prompt, Reply, ResponderFailed
from tests.simulation.seams import Command, Crash

PIECES = ("Once ", "upon a time ", "there was ", "a ledger.")
USED = Usage(prompt_tokens=1_000, completion_tokens=500, estimated=False)

#: Lines of a script: say the next piece, fail, break, die, go on after so many seconds while the
#: lease is renewed or while it is not, let others do something, count what was used.
SAY, FAIL, BREAK, DIE, COUNT = "say", "fail", "break", "die", "count"


@dataclass(frozen=True, slots=True)
class Wait:
    seconds: float
    stalled: bool = False


Script = tuple[str | Wait | Command, ...]

PLAIN: Script = (SAY,)
SCRIPTS: tuple[Script, ...] = (
    PLAIN,
    (SAY, COUNT),
    (SAY, SAY, SAY),
    (FAIL,),
    (SAY, FAIL),
    (BREAK,),
    (SAY, DIE),
    (SAY, Wait(2.0), SAY),
    (Wait(95.0), SAY),
    (SAY, Wait(95.0), SAY, COUNT),
    (Wait(12.0, stalled=True), Command("work", 1, 0), SAY),
    (SAY, Wait(12.0, stalled=True), Command("follow", 1, 0), Command("work", 1, 1), SAY),
    (Wait(95.0, stalled=True), Command("follow", 1, 0), SAY),
    (SAY, Command("cancel", 0, 0), SAY),
    (SAY, Command("cancel", 0, 0), Wait(1.0), SAY),
    (SAY, Command("delete", 0, 0), SAY, COUNT),
    (SAY, Command("erase", 0, 0), Wait(1.0), SAY),
    (SAY, Command("deactivate", 0, 0), SAY),
    (Command("lose", 0, 0), SAY),
    (SAY, Command("send", 0, 1), Command("replay", 0, 0), SAY),
)


class SimulatedResponder:
    """Reads one script."""

    model = "simulated"
    waits = False

    def __init__(
        self,
        script: Script,
        wait: Callable[[Wait], None],
        others: Callable[[tuple[Command, ...]], None],
    ) -> None:
        self._script = script
        self._wait = wait
        self._others = others

    def respond(self, prompt: Prompt, reply: Reply) -> Usage | None:
        pieces = iter(PIECES)
        used: Usage | None = None
        seconds_left = prompt.seconds_left
        for line in self._script:
            match line:
                case "say":
                    reply.say(next(pieces))
                case "fail":
                    raise ResponderFailed("the script says so")
                case "break":
                    raise RuntimeError("the script says so")
                case "die":
                    raise Crash
                case "count":
                    used = USED
                case Wait():
                    self._wait(line)
                    seconds_left -= line.seconds
                    if seconds_left <= 0 and not line.stalled:
                        raise DeadlinePassed("the script waited for too long")
                case Command():
                    self._others((line,))
        return used
