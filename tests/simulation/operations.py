"""What somebody in the simulated world can do, and what must come of it.

Each operation has two numbers, by which it picks whom and what it is about. The answer to a request
that nothing befalls is known beforehand, from the ledger; of any other it is known that it is
wholly there or not at all, and there if it was answered so.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import TypeVar
from uuid import UUID

from django.conf import settings

from accounts import staff_commands as staff
from accounts.commands import (
    Registered,
    RegisterUser,
    RevokeJwts,
    UsernameTaken,
    UserNotFound,
    register_user,
    revoke_jwts,
)
from accounts.domain import AccountDeactivated, AccountErased
from conversations import commands, replies
from conversations import conversation_commands as conversing
from conversations.actors import generate_response
from conversations.cancelling import tell
from conversations.ends import Ended
from eventstore.cause import Cause
from eventstore.database import StoreUnavailable
from eventstore.domain import Refused
from eventstore.writer import Command, shared_writer
from privacy.erasure import EraseUser, erase_user
from projections.rebuild import RebuildStopped, rebuild
from projections.registry import PROJECTIONS
from tests.simulation import read_models
from tests.simulation.responder import PLAIN, SCRIPTS
from tests.simulation.world import FLAT_PRICE, USAGE_PRICE, NothingToDo, World

T = TypeVar("T")
Operation = Callable[[World, int, int], None]

NAMES = ("alice", "bob", "Carol", "dave", "Alice", "BOB", "erin", "carol", "frank", "grace")
TEXTS = ("hello", "how are you?", "bye")
#: Sends with no key, and with one of these.
KEYS = (None, None, None, "1", "2", "3")
GIVER = UUID("57aff000-0000-4000-8000-000000000001")
STEPS_MAX = 200
#: The number by which `work` does what it is to do, and nothing else happens.
PLAIN_WORK = 255
LATEST_MAX = 16
SWEEP_SECONDS = 1.01

OPERATIONS: dict[str, Operation] = {}


def operation(function: Operation) -> Operation:
    """Something that can be done; its name is the function's."""
    OPERATIONS[function.__name__] = function
    return function


def pick(several: Sequence[T], number: int) -> T:
    """One of several. Raises `NothingToDo` if there is none."""
    if not several:
        raise NothingToDo
    return several[number % len(several)]


def latest(several: Sequence[T], number: int) -> T:
    """One of the last: the last one for 0, the one before for 1. Raises `NothingToDo`."""
    return pick(several[: -LATEST_MAX - 1 : -1], number)


def user_of(world: World, number: int) -> str:
    return pick(list(world.ledger.accounts), number)


@operation
def register(world: World, a: int, b: int) -> None:
    name = NAMES[b % len(NAMES)]
    request = world.request("register", name.casefold())
    taken = name.casefold() in {
        world.requests[account.request][1] for account in world.ledger.accounts.values()
    }
    command = RegisterUser(name, "correct horse battery")
    answer = world.ask(register_user, command, Cause("anonymous", request))
    if world.calm:
        world.must(isinstance(answer, UsernameTaken) is taken, 6, f"registering: {answer!r}")
    if isinstance(answer, Registered):
        account = world.ledger.accounts.get(answer.user_id.hex)
        world.must(account and account.request == request, 5, "a registration is not in the log")


@operation
def send(world: World, a: int, b: int) -> None:
    user = user_of(world, a)
    ledger, key = world.ledger, KEYS[b % len(KEYS)]
    own = [each for each, found in ledger.conversations.items() if found.user == user]
    conversation = pick([None, None, None, *own, *list(ledger.conversations)[-1:]], b // 7)
    settings.PRICING = ("message", "message", "usage")[b % 3]
    text = TEXTS[b % 2]
    request = world.request("send", text)
    command = commands.SendMessage(
        user_id=UUID(user),
        conversation_id=UUID(conversation) if conversation else None,
        message_id=commands.message_id_for(UUID(user), key),
        message=text,
        awaited=b % 5 == 0,
    )
    message_id = command.message_id.hex
    expected = answer_to_send(world, command, user, conversation)
    answer = world.ask(commands.send_message, command, Cause(f"user:{UUID(user)}", request))
    settings.PRICING = "message"
    sent = ledger.messages.get(message_id)
    is_mine = sent is not None and sent.request == request
    if world.calm:
        known = type(answer).__name__
        if isinstance(answer, commands.Accepted):
            known = "Repeated" if answer.repeated else "Accepted"
        world.must(known in expected, 6, f"a send was answered {answer!r} instead of {expected}")
    if isinstance(answer, commands.Accepted):
        world.must(sent, 5, f"{message_id} was accepted and is not there")
        world.must(is_mine or answer.repeated, 6, f"{message_id} was accepted and is another's")
        if not answer.repeated:
            replies.enqueue(answer.message_id)
    elif isinstance(answer, Refused) and sent is not None and is_mine:
        # It was there, and went with its conversation before anybody could be told.
        is_gone = ledger.conversations[sent.conversation].deleted or ledger.accounts[user].erased
        world.must(is_gone, 5, f"{message_id} was refused and is there")


@operation
def send_together(world: World, a: int, b: int) -> None:
    """Sends of two users that the writer finds in its queue at once, some with one key."""
    batch = []
    for number in range(2 + b % 3):
        user = UUID(user_of(world, a + number // 2))
        key, text = KEYS[(b + number // 2) % len(KEYS)], TEXTS[b // 6 % 2]
        settings.PRICING = ("message", "usage")[(b + number) % 2]
        request = world.request("send", text)
        message_id = commands.message_id_for(user, key)
        order = commands.SendMessage(user, None, message_id, text)
        decision = commands.sending(order, Cause(f"user:{user}", request))
        done: Future[commands.Accepted] = Future()
        batch.append((message_id.hex, request, Command(decision, done), done))
    settings.PRICING = "message"

    def together() -> None:
        left = [command for _, _, command, _ in batch]
        while left:
            left = shared_writer.carry_out(left)

    world.ask(together)
    for sent_id, request, _, done in batch:
        if not done.done():
            continue
        sent, error = world.ledger.messages.get(sent_id), done.exception()
        if error is not None:
            known = isinstance(error, Refused if world.calm else (Refused, StoreUnavailable))
            world.must(known, 6, f"a send was answered {error!r}")
        else:
            world.must(sent, 5, f"{sent_id} was accepted and is not there")
            is_mine = sent is not None and sent.request == request
            world.must(is_mine or done.result().repeated, 6, f"{sent_id} is another's")
            if not done.result().repeated:
                replies.enqueue(done.result().message_id)


def answer_to_send(
    world: World, command: commands.SendMessage, user: str, conversation: str | None
) -> str:
    """What a send is to be answered that nothing befalls."""
    ledger = world.ledger
    account = ledger.accounts[user]
    sent = ledger.messages.get(command.message_id.hex)
    if sent is not None:
        if conversation not in (None, sent.conversation):
            return "IdempotencyKeyReused"
        if ledger.conversations[sent.conversation].deleted:
            return "MessageDeleted"
        if conversation is None and sent.conversation != account.default:
            return "IdempotencyKeyReused"
        if world.requests[sent.request][1] != command.message:
            return "IdempotencyKeyReused"
        # A process may remember the key of an erased text for seconds; then it is a repeat still.
        return "IdempotencyKeyReused or Repeated" if account.erased else "Repeated"
    place = ledger.conversations.get(conversation or account.default)
    if place is not None and (place.user != user or place.deleted):
        return "ConversationNotFound"
    if not account.active:
        return "AccountDeactivated"
    price = USAGE_PRICE if settings.PRICING == "usage" else FLAT_PRICE
    return "Accepted" if account.balance >= price else "InsufficientTokens"


@operation
def grant(world: World, a: int, b: int) -> None:
    user = user_of(world, a)
    ledger, key = world.ledger, KEYS[b % len(KEYS)]
    amount = 100 * (1 + b % 2)
    grant_id = staff.grant_id_for(GIVER, key)
    made = ledger.grants.get(grant_id.hex)
    if ledger.accounts[user].erased:
        expected = "UserNotFound"
    elif made is not None:
        expected = "Repeated" if made == (user, amount) else "GrantKeyReused"
    else:
        expected = "Granted"
    request = world.request("grant")
    command = staff.GrantTokens(grant_id, UUID(user), amount, "kindness")
    answer = world.ask(staff.grant_tokens, command, Cause(f"staff:{GIVER}", request))
    if isinstance(answer, staff.Granted):
        world.must(grant_id.hex in ledger.grants, 5, "a grant is not in the log")
        world.must(
            answer.balance == ledger.accounts[user].balance or not world.calm, 1, "another balance"
        )
    if world.calm:
        known = type(answer).__name__
        if isinstance(answer, staff.Granted) and answer.repeated:
            known = "Repeated"
        world.must(known == expected, 6, f"a grant was answered {answer!r} instead of {expected}")


@operation
def cancel(world: World, a: int, b: int) -> None:
    message_id = latest(list(world.ledger.messages), a)
    cause = Cause("user:somebody", world.request("cancel"))
    answer = world.ask(commands.cancel_message, UUID(message_id), cause)
    if isinstance(answer, Ended):
        tell(UUID(message_id), answer)
        check_end(world, message_id, answer)
    elif world.calm:
        world.must(answer is not None, 3, f"a cancel was answered {answer!r}")


def check_end(world: World, message_id: str, told: Ended) -> None:
    """What somebody is told of an end is what the log says."""
    sent = world.ledger.messages[message_id]
    status = {"ResponseGenerated": "done", "ResponseFailed": "failed"}.get(sent.end, "cancelled")
    is_so = (told.status, told.cost, told.refunded, told.position) == (
        *(status, sent.cost, sent.price - sent.cost),
        sent.end_position,
    )
    world.must(sent.end and is_so, 4, lambda: f"{message_id} is {sent}, told was {told}")


@operation
def work(world: World, a: int, b: int) -> None:
    """Deliver a message of the broker's to a worker; it is acknowledged when the actor returns."""
    queue = world.redis.broker.queue
    if world.redis.away:
        raise NothingToDo
    message_id = pick(queue, b // len(SCRIPTS))
    queue.remove(message_id)
    script, world.script = world.script, SCRIPTS[b % len(SCRIPTS)] if b < 128 else PLAIN
    sent = world.ledger.pending.get(UUID(message_id).hex)
    is_free = world.redis.leases._held.get(f"message:{message_id}", ("", 0))[1] <= (
        world.clock.monotonic()
    )
    delivered = False
    try:
        generate_response.fn(message_id)
        world.redis.broker.acknowledge()
        delivered = True
    except ConnectionError:
        # It was done; the broker does not know, and brings it again.
        pass
    finally:
        if world.script is PLAIN and world.calm and delivered and sent and is_free:
            world.must(sent.end, 3, f"{message_id} has no end after its response")
        world.script = script
        if not delivered:
            queue.append(message_id)


@operation
def follow(world: World, a: int, b: int) -> None:
    """Bring the read models to the end of the log, and sweep."""
    process = world.process
    for _ in range(STEPS_MAX):
        if not process.runner.step():
            break
    if world.calm:
        differences = read_models.balances(world)
        world.must(not differences, 8, differences)
    if b % 4 == 0:
        world.clock.advance(SWEEP_SECONDS)
        process.sweeper.step()
        if world.calm:
            late = [
                each
                for each, sent in world.ledger.pending.items()
                if sent.deadline_at <= world.clock.now
            ]
            world.must(not late, 7, f"{late} are pending after their deadline and a sweep")
    elif b % 4 == 1:
        process.sealer.step()


@operation
def begin(world: World, a: int, b: int) -> None:
    """Begin a conversation."""
    user = user_of(world, a)
    command = conversing.StartConversation(UUID(user), "about" if b % 2 else None)
    cause = Cause(f"user:{UUID(user)}", world.request("begin"))
    answer = world.ask(conversing.start_conversation, command, cause)
    if isinstance(answer, conversing.Written):
        world.must(answer.id.hex in world.ledger.conversations, 5, "a conversation is not there")
    if world.calm:
        is_active = world.ledger.accounts[user].active
        world.must(
            isinstance(answer, conversing.Written if is_active else AccountDeactivated),
            5,
            f"beginning: {answer!r}",
        )


@operation
def rename(world: World, a: int, b: int) -> None:
    ledger = world.ledger
    conversation = latest(list(ledger.conversations), a)
    place = ledger.conversations[conversation]
    user = place.user if b % 8 else user_of(world, b)
    command = conversing.RenameConversation(UUID(user), UUID(conversation), "renamed")
    cause = Cause(f"user:{UUID(user)}", world.request("rename"))
    answer = world.ask(conversing.rename_conversation, command, cause)
    if world.calm:
        expected = "Written"
        if not ledger.accounts[user].active:
            expected = "AccountDeactivated"
        elif place.user != user or place.deleted:
            expected = "ConversationNotFound"
        world.must(type(answer).__name__ == expected, 10, f"renaming: {answer!r}, not {expected}")


@operation
def delete(world: World, a: int, b: int) -> None:
    """Delete a conversation; now and then it is somebody else who tries."""
    ledger = world.ledger
    conversation = latest(list(ledger.conversations), b // 8)
    place = ledger.conversations[conversation]
    user = place.user if b % 8 else user_of(world, b)
    was_deleted = place.deleted
    command = conversing.DeleteConversation(UUID(user), UUID(conversation))
    cause = Cause(f"user:{UUID(user)}", world.request("delete"))
    answer = world.ask(conversing.delete_conversation, command, cause)
    if isinstance(answer, int):
        world.must(place.deleted and place.user == user, 5, "a deletion is not there")
    if world.calm:
        expected: type = int
        if place.user != user or was_deleted:
            expected = commands.ConversationNotFound
        elif ledger.accounts[user].erased:
            expected = AccountErased
        world.must(isinstance(answer, expected), 10, f"deleting: {answer!r}, not {expected}")


@operation
def erase(world: World, a: int, b: int) -> None:
    user = user_of(world, a)
    was_erased = world.ledger.accounts[user].erased
    cause = Cause(f"staff:{GIVER}", world.request("erase"))
    answer = world.ask(erase_user, EraseUser(UUID(user)), cause)
    if isinstance(answer, int):
        world.must(world.ledger.accounts[user].erased, 5, "an erasure is not there")
    if world.ledger.accounts[user].erased:
        left = read_models.keys_of(world, user)
        world.must(not left, 12, f"{left} keys and credentials of {user} are left")
    if world.calm:
        expected = UserNotFound if was_erased else int
        world.must(isinstance(answer, expected), 5, f"erasing: {answer!r}")


def _change(
    world: World, a: int, function: Callable[..., object], kind: Callable[..., object], **said: str
) -> None:
    user = user_of(world, a)
    cause = Cause(f"staff:{GIVER}", world.request(function.__name__))
    answer = world.ask(function, kind(UUID(user), **said), cause)
    if world.calm:
        is_refused = isinstance(answer, UserNotFound | AccountErased)
        world.must(is_refused is world.ledger.accounts[user].erased, 5, f"{answer!r}")


@operation
def deactivate(world: World, a: int, b: int) -> None:
    _change(world, a, staff.deactivate_user, staff.DeactivateUser)


@operation
def activate(world: World, a: int, b: int) -> None:
    _change(world, a, staff.activate_user, staff.ActivateUser)


@operation
def promote(world: World, a: int, b: int) -> None:
    _change(world, a, staff.set_role, staff.SetRole, role=("staff", "member")[b % 2])


@operation
def revoke(world: World, a: int, b: int) -> None:
    _change(world, a, revoke_jwts, RevokeJwts)


@operation
def replay(world: World, a: int, b: int) -> None:
    """Rebuild read models beside the live ones, and swap."""
    names = sorted(PROJECTIONS) if b % 2 else [sorted(PROJECTIONS)[b // 2 % len(PROJECTIONS)]]
    try:
        rebuild({name: PROJECTIONS[name] for name in names})
    except RebuildStopped as stopped:
        world.must(not world.calm, 8, f"a rebuild stopped: {stopped}")


@operation
def wait(world: World, a: int, b: int) -> None:
    world.pass_time((0.5, 1.0, 2.5, 5.0, 11.0, 31.0, 95.0)[b % 7])


@operation
def set_back(world: World, a: int, b: int) -> None:
    """Set the clock on the wall back, or right again."""
    if b % 2:
        world.clock.set_right()
    else:
        world.clock.set_back((1, 60, 3600)[b % 3])


@operation
def repeat(world: World, a: int, b: int) -> None:
    """Have the broker bring a message again, of all that were ever sent."""
    if world.redis.away:
        raise NothingToDo
    message_id = latest(list(world.ledger.messages), b)
    world.redis.broker.queue.append(str(UUID(message_id)))


@operation
def lose(world: World, a: int, b: int) -> None:
    """Have Redis lose messages, or all that it holds, or go away, or come back."""
    match b % 5:
        case 0:
            del world.redis.broker.queue[: 1 + b % 3]
        case 1:
            world.redis.lose_all()
        case 2:
            world.redis.away = True
        case _:
            world.redis.away = False


@operation
def die(world: World, a: int, b: int) -> None:
    """Kill a process between two operations, or all of them with all that is in memory."""
    world.process.start()
    if b % 16 == 0:
        world.redis.lose_all()
        for process in world.processes:
            if process not in world.at_work:
                process.start()
