"""The read models by plain SQL, against what the ledger says they have to be."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.simulation.world import World

STATUS = {
    "": "pending",
    "ResponseGenerated": "done",
    "ResponseFailed": "failed",
    "ResponseCancelled": "cancelled",
}


def balances(world: "World") -> str:
    """What differs in the balances, if anything does."""
    due = [(user, each.balance) for user, each in _accounts(world).items()]
    return _difference("balances", _rows(world, "balances", "user_id, amount"), due)


def all_of(world: "World") -> str:
    """What differs in any read model."""
    ledger, accounts = world.ledger, _accounts(world)
    statement = [
        (user, number, each.kind, each.amount, each.balance, each.message_id)
        for user, account in accounts.items()
        for number, each in enumerate(account.entries, 1)
    ]
    conversations = [
        (conversation, each.user)
        for conversation, each in ledger.conversations.items()
        if not each.deleted and each.user in accounts
    ]
    there = {conversation for conversation, _ in conversations}
    history = [
        (message, each.user, each.conversation, STATUS[each.end], each.reason, _cost(each))
        for message, each in ledger.messages.items()
        if each.conversation in there
    ]
    pending = [(message, each.deadline_at) for message, each in ledger.pending.items()]
    columns: dict[str, tuple[str, list[tuple[Any, ...]]]] = {
        "users": ("user_id", [(user,) for user in accounts]),
        "statement": ("user_id, entry, kind, amount, balance, message_id", statement),
        "conversations": ("conversation_id, user_id", conversations),
        "history": ("message_id, user_id, conversation_id, status, reason, cost", history),
        "pending": ("message_id, deadline_at", pending),
    }
    return balances(world) + "".join(
        _difference(name, _rows(world, name, selected), due)
        for name, (selected, due) in columns.items()
    )


def keys_of(world: "World", user: str) -> int:
    """How many keys and credentials of a user there are."""
    ((found,),) = world.database.connection.execute(
        "SELECT (SELECT count(*) FROM eventstore_datakey"
        " WHERE wrapped IS NOT NULL AND (id = ?1 OR wrapped_by = ?1))"
        " + (SELECT count(*) FROM accounts_credential WHERE user_id = ?1)",
        [user],
    )
    return int(found)


def _accounts(world: "World") -> dict[str, Any]:
    return {user: each for user, each in world.ledger.accounts.items() if not each.erased}


def _cost(message: Any) -> int:
    return int(message.cost if message.end else message.price)


def _rows(world: "World", name: str, columns: str) -> list[tuple[Any, ...]]:
    cursor = world.database.connection.execute(
        f"SELECT {columns} FROM projections_{name} WHERE generation ="
        f" (SELECT generation FROM projections_pointer WHERE name = '{name}')"
    )
    rows: list[tuple[Any, ...]] = cursor.fetchall()
    return rows


def _difference(name: str, shown: list[tuple[Any, ...]], due: list[tuple[Any, ...]]) -> str:
    if len(shown) == len(due) and set(shown) == set(due):
        return ""
    more, less = set(shown) - set(due), set(due) - set(shown)
    return f"{name} shows {sorted(map(str, more))}, by the log {sorted(map(str, less))}; "
