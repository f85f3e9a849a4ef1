"""A page of a conversation of 100,000 messages against one of 100, and what deleting it takes.

    python -m benchmarks.message_pages [MESSAGES] [SAMPLES]

On SQLite and on a PostgreSQL of its own. The messages are real events, each with its response, that
the runner has shown. Pages are read by the query that the API uses, texts decrypted, the two
conversations in turn.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import django
import msgspec
from eventsourcing.persistence import StoredEvent

from devstack.application import COMMANDS, PROJECT, clean_environment, make_keys, run_once
from devstack.services import start_postgres

ASKED_RATIO = 1.2
#: The argument that says: measure on the database of this process's settings.
HERE = "here"
SHORT_MESSAGES = 100
PAGE_MESSAGES = 100
#: Messages whose events share an append.
APPENDED_MESSAGES = 2_500
TEXT = "Tell me, in a few words, what the weather was like on the day before yesterday. "


def main(messages: int = 100_000, samples: int = 200) -> int:
    print(f"pages of {PAGE_MESSAGES} messages, {samples} of each kind, {os.cpu_count()} cores:")
    counts = [str(messages), str(samples)]
    with tempfile.TemporaryDirectory(prefix="chatledger-") as folder:
        sqlite = {"DATABASE_URL": f"sqlite:///{folder}/pages.sqlite3"}
        held = [measure("SQLite", Path(folder) / "embedded", sqlite, counts)]
        postgres = start_postgres(Path(folder) / "postgres")
        try:
            # Nothing here asks Redis, but a profile has either both or none.
            full = {"DATABASE_URL": postgres.url, "REDIS_URL": "redis://127.0.0.1:1/0"}
            held.append(measure("PostgreSQL", Path(folder) / "full", full, counts))
        finally:
            postgres.stop()
    return 0 if all(held) else 1


def measure(name: str, folder: Path, settings: dict[str, str], counts: list[str]) -> bool:
    """Measure on one database, in a process that has its settings; whether the ratios held."""
    folder.mkdir()
    environment = clean_environment() | make_keys(folder) | settings
    environment |= {"VAR_DIR": str(folder), "DJANGO_SETTINGS_MODULE": "config.settings"}
    run_once("migrate", COMMANDS["migrate"], environment, folder)
    print(f"{name}:", flush=True)
    command = [sys.executable, "-m", "benchmarks.message_pages", HERE, *counts]
    return subprocess.run(command, cwd=PROJECT, env=environment, check=False).returncode == 0


def main_here(messages: int, samples: int) -> int:
    """Fill the database of this process's settings, read pages, delete the long conversation."""
    django.setup()
    from projections.runner import ProjectionRunner

    user, long, short = uuid4(), uuid4(), uuid4()
    runner = ProjectionRunner()
    began = time.perf_counter()
    start(user, long, short)
    of_long, of_short = ids(messages), ids(SHORT_MESSAGES)
    half = messages // 2
    send(user, long, of_long[:half])
    send(user, short, of_short)
    send(user, long, of_long[half:])
    filled = time.perf_counter() - began
    shown = show(runner)
    print(f"  {messages:,} messages appended in {filled:.1f} s, shown in {shown:.1f} s")
    worst = compare(user, (long, of_long), (short, of_short), samples)
    append([stored(long, 2, "conversations.ConversationDeleted", {"user_id": str(user)})])
    print(f"  deleting the {messages:,} messages takes the read models {show(runner):.2f} s")
    return 0 if worst <= ASKED_RATIO else 1


def compare(
    user: UUID, long: tuple[UUID, list[UUID]], short: tuple[UUID, list[UUID]], samples: int
) -> float:
    """Print the medians of each kind of page and their ratio; the highest of the ratios."""
    from projections import queries

    seconds: dict[tuple[str, str], list[float]] = defaultdict(list)
    pages = [("long", long[0], where(long[1])), ("short", short[0], where(short[1]))]
    for _ in range(samples):
        for kind in pages[0][2]:
            for which, conversation, places in pages:
                began = time.perf_counter()
                page = queries.messages(user, conversation, **places[kind])
                seconds[kind, which].append(time.perf_counter() - began)
                assert page is not None
                assert len(page.rows) == places[kind]["limit"]
    worst = 0.0
    for kind in pages[0][2]:
        of_long, of_short = (statistics.median(seconds[kind, which]) for which in ("long", "short"))
        worst = max(worst, of_long / of_short)
        print(
            f"  {kind:18} {of_long * 1000:6.2f} ms against {of_short * 1000:6.2f} ms,"
            f" ratio {of_long / of_short:.2f}"
        )
    return worst


def where(messages: Sequence[UUID]) -> dict[str, dict[str, Any]]:
    """The pages that are read, each as long in a short conversation as in a long one."""
    is_long = len(messages) > PAGE_MESSAGES
    middle = len(messages) // 2
    first, last = {"after": None, "before": None}, {"after": None, "before": None, "latest": True}
    beside = PAGE_MESSAGES - 1
    return {
        "first": first | {"limit": PAGE_MESSAGES},
        "last": last | {"limit": PAGE_MESSAGES},
        "after the first": {"after": messages[0], "before": None, "limit": beside},
        "before the last": {"after": None, "before": messages[-1], "limit": beside},
        # A conversation of one page has no other middle than its ends.
        "after the middle": {
            "after": messages[middle if is_long else 0],
            "before": None,
            "limit": beside,
        },
        "before the middle": {
            "after": None,
            "before": messages[middle if is_long else -1],
            "limit": beside,
        },
    }


def ids(count: int) -> list[UUID]:
    return [uuid4() for _ in range(count)]


def start(user: UUID, *conversations: UUID) -> None:
    """Start the conversations of a user, each with its key."""
    from eventstore import keys

    keys.create_key(user)
    for conversation in conversations:
        keys.create_key(conversation, wrapped_by=user)
        said = {"user_id": str(user), "title": None}
        append([stored(conversation, 1, "conversations.ConversationStarted", said)])


def send(user: UUID, conversation: UUID, messages: Sequence[UUID]) -> None:
    """Send messages in a conversation and respond to each."""
    for number in range(0, len(messages), APPENDED_MESSAGES):
        some = messages[number : number + APPENDED_MESSAGES]
        append(event for message in some for event in exchange(user, conversation, message))


def exchange(user: UUID, conversation: UUID, message: UUID) -> Iterator[StoredEvent]:
    """A message and its response, as the log stores them."""
    of = {"user_id": str(user), "conversation_id": str(conversation)}
    yield stored(
        message,
        1,
        "conversations.MessageSent",
        of | {"price": 100, "usage_prices": None, "deadline_seconds": 90},
        {"message": TEXT},
        conversation,
    )
    yield stored(
        message,
        2,
        "conversations.ResponseGenerated",
        of | {"cost": 100, "usage": None, "attempt": 1, "model": "dummy"},
        {"response": TEXT * 3},
        conversation,
    )


def stored(
    stream_id: UUID,
    version: int,
    topic: str,
    said: dict[str, Any],
    personal: dict[str, str] | None = None,
    key_id: UUID | None = None,
) -> StoredEvent:
    """An event as the log stores it, its personal text encrypted."""
    from eventstore import keys
    from eventstore.encrypted import encrypt

    topic = f"chatledger.{topic}"
    data = dict(said)
    for name, text in (personal or {}).items():
        assert key_id is not None
        data[name] = encrypt(
            text,
            keys.cipher(key_id),
            key_id=key_id,
            stream_id=stream_id,
            version=version,
            topic=topic,
            field=name,
        )
    return StoredEvent(stream_id, version, topic, msgspec.json.encode(data))


def append(events: Iterable[StoredEvent]) -> None:
    from eventstore.cause import Cause
    from eventstore.database import writing
    from eventstore.recorder import LogRecorder

    with writing():
        LogRecorder().insert_events(list(events), cause=Cause("shell"))


def show(runner: Any) -> float:
    """Let the read models catch up; how long that took, in seconds."""
    began = time.perf_counter()
    while runner.step():
        pass
    return time.perf_counter() - began


if __name__ == "__main__":
    if sys.argv[1:2] == [HERE]:
        sys.exit(main_here(*map(int, sys.argv[2:])))
    sys.exit(main(*map(int, sys.argv[1:])))
