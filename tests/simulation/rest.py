"""Coming to rest: what was begun ends, whatever was lost; and then everything has to hold."""

from uuid import UUID

from django.db import transaction

from accounts.domain import Account
from conversations.domain import Exchange
from eventstore.keys import ERASED, forget
from eventstore.log import EventLog
from eventstore.seals.verification import verify_seals
from projections.comparison import compare_with_fresh_replay
from tests.simulation import read_models
from tests.simulation.operations import PLAIN_WORK, operation
from tests.simulation.seams import Command
from tests.simulation.world import World

#: Rounds of following, sweeping and working in which everything ends if nothing more is lost: the
#: leases of the dead run out, and each message comes to the broker again.
ROUNDS_MAX = 12
ROUND_SECONDS = 4.0
#: Messages whose text is read.
READ_MAX = 4


@operation
def settle(world: World, a: int, b: int) -> None:
    """Let everything end, by workers or, where the broker goes on losing all it has, without."""
    world.redis.away = False
    world.clock.set_right()
    if b % 2:
        for _ in range(ROUNDS_MAX):
            if not world.ledger.pending:
                break
            _follow(world)
            while world.redis.broker.queue:
                world.do(Command("work", a, PLAIN_WORK))
            world.pass_time(ROUND_SECONDS)
    else:
        latest = max((sent.deadline_at for sent in world.ledger.pending.values()), default=0)
        world.pass_time(max(0, latest - world.clock.now) / 1_000_000)
    world.redis.lose_all()
    _follow(world)
    _follow(world)
    world.must(not world.ledger.pending, 7, lambda: f"{[*world.ledger.pending]} are pending")
    check_at_rest(world)


def check_at_rest(world: World) -> None:
    """Read models, seals and texts, by the log."""
    world.clock.advance(2.0)
    while world.process.sealer.step():
        pass
    world.must(not (shown := read_models.all_of(world)), 8, shown)
    with transaction.atomic():
        replayed = compare_with_fresh_replay()
        transaction.set_rollback(True)
    world.must(not replayed, 8, "; ".join(replayed))
    found = verify_seals()
    world.must(not found.differences and not found.unsealed, 11, "; ".join(found.differences))
    forget()
    log = EventLog()
    for user, account in world.ledger.accounts.items():
        tokens = log.load(Account, UUID(user)).tokens
        world.must(tokens == account.balance, 1, f"{user} has {tokens}, not {account.balance}")
        if account.erased:
            world.must(not read_models.keys_of(world, user), 12, f"{user} has keys")
    for message_id in [*world.ledger.messages][-READ_MAX:]:
        sent = world.ledger.messages[message_id]
        is_gone = world.ledger.conversations[sent.conversation].deleted
        is_gone = is_gone or world.ledger.accounts[sent.user].erased
        said = ERASED if is_gone else world.requests[sent.request][1]
        text = log.load(Exchange, UUID(message_id)).message
        world.must(text == said, 12, f"{message_id} says {text!r} instead of {said!r}")


def _follow(world: World) -> None:
    world.do(Command("follow", 0, 0))
