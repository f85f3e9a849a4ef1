"""A dump of a running service is of one instant, and nobody waits for it."""

import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

from django.db import connection

from accounts.commands import RegisterUser, register_user
from audit.dumps.dumping import dump
from audit.dumps.wrapping import as_they_are
from audit.one_instant import one_instant
from conversations.conversation_commands import (
    DeleteConversation,
    StartConversation,
    delete_conversation,
    start_conversation,
)
from eventstore.marker import Marker
from eventstore.reading import max_position
from projections.comparison import compare_with_fresh_replay
from tests.dumps.making import (
    CAUSE,
    PASSWORD,
    empty_the_log,
    fill_the_log,
    load_here,
    seal,
    send,
)

DUMPS = 3
WAIT_SECONDS = 20.0


def in_a_thread_of_its_own(function: Callable[[], Any]) -> Callable[[], Any]:
    def run() -> Any:
        try:
            return function()
        finally:
            connection.close()

    return run


@contextmanager
def busy_service() -> Iterator[Marker]:
    """Send, delete and seal for as long as the block takes, and count the rounds."""
    stop = threading.Event()
    rounds = Marker()

    @in_a_thread_of_its_own
    def work() -> None:
        user = register_user(RegisterUser("carol", PASSWORD), CAUSE).user_id
        while not stop.is_set():
            conversation = start_conversation(StartConversation(user, "Gone soon"), CAUSE).id
            send(user, "hello", conversation, answered=False)
            delete_conversation(DeleteConversation(user, conversation), CAUSE)
            seal()
            rounds.advance(rounds.value + 1)

    with ThreadPoolExecutor(1) as thread:
        working = thread.submit(work)
        try:
            assert rounds.wait(1, WAIT_SECONDS)
            yield rounds
        finally:
            stop.set()
            working.result(WAIT_SECONDS)


def dumped_slowly(rounds: Marker) -> bytes:
    """A dump during which the service goes on: a round behind each kind of line."""
    lines: list[bytes] = []

    def write(line: bytes) -> None:
        if not lines or line[:15] != lines[-1][:15]:
            assert rounds.wait(rounds.value + 1, WAIT_SECONDS)
        lines.append(line)

    dump(write, wrapping=as_they_are(), report=lambda done, total: None)
    return b"".join(lines)


def test_keys_events_and_seals_of_a_dump_are_of_one_instant() -> None:
    fill_the_log()
    with busy_service() as rounds:
        dumps = [dumped_slowly(rounds) for _ in range(DUMPS)]
    for data in dumps:
        assert_of_one_instant(data)
    for data in dumps:
        empty_the_log()
        load_here(data)
        assert compare_with_fresh_replay() == []


def assert_of_one_instant(data: bytes) -> None:
    """A conversation's key is destroyed if and only if its deletion is there."""
    lines = [json.loads(line) for line in data.splitlines()]
    gone = {key["id"]: key["wrapped"] is None for key in lines if key.get("kind") == "data_key"}
    told = {
        topic: {line["stream_id"] for line in lines if line.get("topic", "").endswith(topic)}
        for topic in ("ConversationStarted", "ConversationDeleted")
    }
    assert told["ConversationDeleted"]
    for key in lines:
        # Those of the erased user are gone without a deletion.
        if key.get("wrapped_by") and not gone[key["wrapped_by"]]:
            assert gone[key["id"]] == (key["id"] in told["ConversationDeleted"])
    assert told["ConversationStarted"] <= gone.keys()


def test_others_write_while_a_dump_reads_and_it_does_not_see_it() -> None:
    alice = fill_the_log()
    before = max_position()
    with one_instant():
        assert max_position() == before
        with ThreadPoolExecutor(1) as thread:
            sending = in_a_thread_of_its_own(lambda: send(alice, "meanwhile", None))
            thread.submit(sending).result(WAIT_SECONDS)
        assert max_position() == before
    assert max_position() > before
