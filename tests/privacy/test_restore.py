"""Erasures applied again to a log from an earlier time."""

import json
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from conversations.conversation_commands import DeleteConversation, delete_conversation
from eventstore.cause import Cause
from eventstore.reading import max_position, read_stream
from privacy.erasure import EraseUser, erase_user
from privacy.restore import Applied, ErasuresUnreadable, apply_erasures
from tests.conversations.conftest import CAUSE, Send
from tests.privacy.story import account_of, start, wrapped_keys

RESTORE = Cause("shell:operator")
#: After all that these tests do.
LATER = "2126-11-22T10:00:00Z"


def listed(path: Path, *lines: dict[str, str]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps({"at": LATER, **line}) + "\n" for line in lines))
    return path


def test_a_user_is_erased_again(alice: UUID, bob: UUID, erasures: Path) -> None:
    file = listed(erasures, {"user_id": str(alice)})
    assert apply_erasures(file, RESTORE) == Applied(users=1, conversations=0)
    assert account_of(alice).erased
    assert wrapped_keys(alice) == {}
    assert read_stream(alice)[-1].actor == "shell:operator"
    assert not account_of(bob).erased


def test_a_conversation_is_deleted_again(alice: UUID, send: Send, erasures: Path) -> None:
    talk = start(alice)
    send(alice, conversation_id=talk)
    file = listed(erasures, {"user_id": str(alice), "conversation_id": str(talk)})
    assert apply_erasures(file, RESTORE) == Applied(users=0, conversations=1)
    assert talk not in wrapped_keys(alice)
    assert account_of(alice).tokens == 4000


def test_twice_is_as_good_as_once(alice: UUID, bob: UUID, erasures: Path) -> None:
    talk = start(bob)
    file = listed(
        erasures,
        {"user_id": str(alice)},
        {"user_id": str(bob), "conversation_id": str(talk)},
        {"user_id": str(alice)},
    )
    assert apply_erasures(file, RESTORE) == Applied(1, 1)
    position = max_position()
    assert apply_erasures(file, RESTORE) == Applied(0, 0)
    assert max_position() == position


def test_what_this_log_does_not_hold_is_passed_over(alice: UUID, erasures: Path) -> None:
    gone = start(alice)
    delete_conversation(DeleteConversation(alice, gone), CAUSE)
    position = max_position()
    file = listed(
        erasures,
        {"user_id": str(uuid4())},
        {"user_id": str(uuid4()), "conversation_id": str(uuid4())},
        {"user_id": str(alice), "conversation_id": str(uuid4())},
        {"user_id": str(alice), "conversation_id": str(gone)},
    )
    assert apply_erasures(file, RESTORE) == Applied(0, 0)
    assert max_position() == position


def test_a_conversation_of_an_erased_user_is_gone_with_them(alice: UUID, erasures: Path) -> None:
    talk = start(alice)
    erase_user(EraseUser(alice), CAUSE)
    file = listed(erasures, {"user_id": str(alice), "conversation_id": str(talk)})
    assert apply_erasures(file, RESTORE) == Applied(0, 0)


@pytest.mark.parametrize(
    "broken", ["{", "[]", '{"user_id": "alice", "at": ""}', '{"at": ""}', '{"who": 1}', ""]
)
def test_a_line_that_cannot_be_read_is_named_and_nothing_is_erased(
    alice: UUID, erasures: Path, broken: str
) -> None:
    file = listed(erasures, {"user_id": str(alice)})
    file.write_text(file.read_text() + broken + "\n")
    with pytest.raises(ErasuresUnreadable, match="line 2"):
        apply_erasures(file, RESTORE)
    assert not account_of(alice).erased


def test_a_file_that_is_not_there_is_named(erasures: Path) -> None:
    with pytest.raises(ErasuresUnreadable, match=r"erasures\.jsonl: No such file"):
        apply_erasures(erasures, RESTORE)


def test_a_line_that_was_cut_off_is_passed_over(
    alice: UUID, bob: UUID, erasures: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = listed(erasures, {"user_id": str(alice)}, {"user_id": str(bob)})
    file.write_text(file.read_text()[:-20])
    assert apply_erasures(file, RESTORE) == Applied(1, 0)
    assert "line 2 is not whole" in caplog.text


def test_a_default_conversation_that_began_since_is_not_the_one_that_was_deleted(
    alice: UUID, send: Send, erasures: Path
) -> None:
    default = account_of(alice).default_conversation_id
    line = {"user_id": str(alice), "conversation_id": str(default)}
    file = listed(erasures, {**line, "at": "2026-11-22T10:00:00Z"})
    assert apply_erasures(file, RESTORE) == Applied(0, 0)
    message_id = send(alice).message_id
    assert apply_erasures(file, RESTORE) == Applied(0, 0)
    assert len(read_stream(message_id)) == 1
    file = listed(erasures, {**line, "at": LATER})
    assert apply_erasures(file, RESTORE) == Applied(0, 1)
