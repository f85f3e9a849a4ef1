"""`manage.py export_events`, and the sum that anybody can make over what it writes."""

import io
import json
import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import OperationalError

from config.environment import PROJECT_DIR
from eventstore import reading
from eventstore.instants import rfc3339
from eventstore.models import EventRecord
from eventstore.reading import READ_MAX, read_events
from tests.config.processes import TIMEOUT_SECONDS, environment, manage, the_line
from tests.projections.story import (
    ALICE,
    BOB,
    HELLO,
    debited,
    generated,
    granted,
    happened,
    messages,
    refunded,
    registered,
    renamed,
    sent,
    started,
)

pytestmark = pytest.mark.django_db
SCRIPT = PROJECT_DIR / "examples" / "balance_at.py"
GRANT_OF_A_WORD = json.dumps(
    {
        "position": 2,
        "type": "chatledger.accounts.TokensGranted",
        "subject": str(ALICE),
        "time": "2026-01-01T00:00:00Z",
        "data": {"amount": "5"},
    }
)
SECRETS = ("alice-the-canary", "signup", "a canary title", "hello canary", "hi canary")


def exported(*arguments: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in export(*arguments).splitlines()]


def export(*arguments: str) -> str:
    out = io.StringIO()
    call_command("export_events", *arguments, stdout=out)
    return out.getvalue()


def tell_a_story() -> int:
    return happened(
        registered(ALICE, "alice-the-canary"),
        granted(ALICE, 4000),
        started(title="a canary title"),
        renamed(title="a canary title"),
        debited(ALICE, 100),
        sent(text="hello canary"),
        generated(response="hi canary"),
    )


def test_the_whole_log_comes_in_order() -> None:
    last = tell_a_story()
    events = exported()
    assert [event["position"] for event in events] == list(range(1, last + 1))
    assert [(event["id"], event["type"], event["subject"]) for event in events] == [
        (str(event.event_id), event.topic, str(event.stream_id)) for event in read_events(0)
    ]


def test_no_personal_text_leaves() -> None:
    tell_a_story()
    text = export()
    assert "amount" in text
    for secret in (*SECRETS, '"box"', '"username"', '"title"', '"message":', '"response"'):
        assert secret not in text


def test_it_begins_behind_a_position() -> None:
    last = tell_a_story()
    assert [event["position"] for event in exported("--after", "5")] == [6, 7]
    assert export("--after", str(last)) == export("--after", str(2**62)) == ""


def test_an_empty_log_gives_nothing() -> None:
    assert export() == ""


def test_no_more_than_one_read_is_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    last = happened(*(debited(ALICE, 1, message) for message in messages(READ_MAX * 2 + 1)))
    sizes = []

    def counted(*args: Any, **kwargs: Any) -> list[Any]:
        events = reading.read_each(*args, **kwargs)
        sizes.append(len(events))
        return events

    monkeypatch.setattr("audit.management.commands.export_events.read_each", counted)
    assert len(exported()) == last
    assert sizes == [READ_MAX, READ_MAX, 1]


def test_it_ends_where_the_log_ended_when_it_began(monkeypatch: pytest.MonkeyPatch) -> None:
    last = tell_a_story()

    def growing(*args: Any, **kwargs: Any) -> list[Any]:
        happened(granted(BOB, 1))
        return reading.read_each(*args, **kwargs)

    monkeypatch.setattr("audit.management.commands.export_events.read_each", growing)
    assert len(exported()) == last


@pytest.mark.parametrize(
    "data",
    [b"", b"\xff\x00", b"[1]", b"7", b"null", b'{"amount": 1', b'{"x": {"box": 1}}', b'{"a": NaN}'],
)
def test_a_row_that_is_no_event_is_named_and_stops_nothing(
    data: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    last = tell_a_story()
    EventRecord.objects.filter(position=5).update(data=data)
    out = io.StringIO()
    with pytest.raises(CommandError, match=r"^1 of the rows are no events"):
        call_command("export_events", stdout=out)
    events = [json.loads(line) for line in out.getvalue().splitlines()]
    assert [event["position"] for event in events] == list(range(1, last + 1))
    assert events[4]["type"] == "chatledger.audit.Unreadable"
    assert capsys.readouterr().err.splitlines() == ["position 5 is unreadable: no event's bytes"]


def test_a_negative_position_is_one_line() -> None:
    with pytest.raises(CommandError, match=r"^--after is a position: 0 or more$"):
        export("--after", "-1")


def test_a_log_that_cannot_be_read_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def away() -> int:
        raise OperationalError("no such table")

    monkeypatch.setattr("audit.management.commands.export_events.max_position", away)
    with pytest.raises(CommandError, match=r"^the log cannot be read: no such table$"):
        export()


# As a process


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A `var` folder whose log is larger than any pipe."""
    folder = tmp_path_factory.mktemp("export") / "var"
    assert manage("migrate", "--verbosity", "0", VAR_DIR=str(folder)).returncode == 0
    with closing(sqlite3.connect(folder / "chatledger.sqlite3")) as database, database:
        database.executemany(
            "INSERT INTO eventstore_event (stream_id, version, topic, data, at, event_id, actor,"
            " request_id) VALUES (?, ?, 'chatledger.tests.Happened', ?, 1, ?, 'shell', '')",
            (
                (ALICE.hex, version, '{"was":"für 5 €"}'.encode(), f"{version:032x}")
                for version in range(1, 5_001)
            ),
        )
    return str(folder)


def test_it_writes_utf_8_whatever_the_locale(filled: str) -> None:
    result = subprocess.run(
        [sys.executable, "manage.py", "export_events", "--after", "4999"],
        cwd=PROJECT_DIR,
        env=environment(VAR_DIR=filled, PYTHONIOENCODING="ascii"),
        capture_output=True,
        timeout=TIMEOUT_SECONDS,
        check=True,
    )
    (line,) = result.stdout.splitlines()
    assert json.loads(line)["data"] == {"was": "für 5 €"}


def test_a_reader_that_has_seen_enough_ends_it_quietly(filled: str) -> None:
    process = subprocess.Popen(
        [sys.executable, "manage.py", "export_events"],
        cwd=PROJECT_DIR,
        env=environment(VAR_DIR=filled),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout
    assert process.stderr
    assert json.loads(process.stdout.readline())["position"] == 1
    process.stdout.close()
    with process.stderr:
        assert process.stderr.read() == b""
    assert process.wait(TIMEOUT_SECONDS) == 1


def test_without_tables_it_is_one_line(tmp_path: Path) -> None:
    assert "the log cannot be read" in the_line(manage("export_events", VAR_DIR=str(tmp_path)))


# examples/balance_at.py


def sum_at(lines: str, user: object, moment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-I", str(SCRIPT), str(user), moment],
        input=lines,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_SECONDS,
        check=False,
        cwd="/",
        env={"PATH": os.environ["PATH"], "PYTHONUTF8": "1"},
    )


def at(position: int, *, before: int = 0) -> str:
    """When an event happened, or a few microseconds before."""
    moment: int = EventRecord.objects.get(position=position).at
    return rfc3339(moment - before)


def spread_out(*, seconds: int = 1) -> None:
    """Give each event a time of its own, as appends of their own would have; none is to come."""
    count = EventRecord.objects.count()
    for record in EventRecord.objects.order_by("position"):
        record.at -= (count - record.position) * seconds * 1_000_000
        record.save()


def test_the_script_sums_up_to_and_at_each_moment() -> None:
    one, two = messages(2)
    happened(
        registered(ALICE),
        granted(ALICE, 4000),
        registered(BOB, "bob"),
        granted(BOB, 7),
        debited(ALICE, 100, one),
        debited(ALICE, 250, two),
        refunded(ALICE, 250, two),
        granted(ALICE, 50),
    )
    spread_out()
    lines = export()
    balances = [0, 4000, 4000, 4000, 3900, 3650, 3900, 3950]
    for position, balance in enumerate(balances, 1):
        assert sum_at(lines, ALICE, at(position)).stdout == f"{balance}\n"
    assert sum_at(lines, ALICE, at(6, before=1)).stdout == "3900\n"
    # Later than the last event, in another zone, and an id in upper case.
    now = datetime.now(timezone(timedelta(hours=2))).isoformat()
    assert sum_at(lines, str(BOB).upper(), now).stdout == "7\n"


def test_before_the_account_there_is_no_sum() -> None:
    tell_a_story()
    lines = export()
    for user, moment in ((ALICE, at(1, before=1)), (BOB, at(7)), (HELLO, at(1))):
        result = sum_at(lines, user, moment)
        assert result.returncode == 1
        assert result.stderr == "there was no such account then\n"


def test_a_sum_over_less_than_the_whole_log_is_refused() -> None:
    tell_a_story()
    lines = export().splitlines(keepends=True)
    for part in (lines[1:], lines[:3] + lines[4:], [lines[1], lines[0]]):
        result = sum_at("".join(part), ALICE, at(7))
        assert result.returncode == 1
        assert result.stderr.startswith("events are missing: ")


def test_a_sum_over_a_row_that_is_no_event_is_refused() -> None:
    tell_a_story()
    EventRecord.objects.filter(position=5).update(data=b"")
    out = io.StringIO()
    with pytest.raises(CommandError):
        call_command("export_events", stdout=out, stderr=io.StringIO())
    result = sum_at(out.getvalue(), ALICE, at(7))
    assert result.returncode == 1
    assert result.stderr.startswith("the event at position 5 cannot be read")


@pytest.mark.parametrize(
    ("user", "moment", "said"),
    [
        (ALICE, "2025-11-17T12:00:00", "the time needs a zone"),
        (ALICE, "yesterday", "'yesterday' is no time"),
        (ALICE, "2025-13-01T00:00:00Z", "'2025-13-01T00:00:00Z' is no time"),
        (ALICE, "2099-01-01T00:00:00+02:00", "2099-01-01T00:00:00+02:00 has not come yet"),
        ("alice", "2025-11-17T12:00:00Z", "'alice' is no id of an account"),
        (ALICE, "0001-01-01T00:00:00+14:00", "there was no such account then"),
    ],
)
def test_what_the_script_cannot_answer_is_one_line(user: object, moment: str, said: str) -> None:
    result = sum_at("", user, moment)
    assert (result.returncode, result.stderr.count("\n")) == (1, 1)
    assert result.stderr.startswith(said)


@pytest.mark.parametrize(
    "line",
    [
        "{",
        "",
        "[]",
        "1",
        "null",
        "{}",
        "[" * 100_000,
        '{"position": 2}',
        '{"position": 2, "type": "x", "subject": "x", "time": "noon"}',
        f'{{"position": 2, "type": "x", "subject": "{ALICE}", "time": "2026-01-01T00:00:00"}}',
        GRANT_OF_A_WORD,
    ],
)
def test_a_line_that_is_no_event_is_named_in_one_line(line: str) -> None:
    happened(registered(ALICE))
    result = sum_at(f"{export()}{line}\n", ALICE, at(1))
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr == "line 2 is no event of an export: no sum can be trusted\n"


def test_without_its_two_arguments_the_script_says_how_it_is_used() -> None:
    result = subprocess.run(
        [sys.executable, "-I", str(SCRIPT), str(ALICE)],
        capture_output=True,
        text=True,
        timeout=TIMEOUT_SECONDS,
        check=False,
    )
    assert (result.returncode, result.stdout) == (2, "")
    assert "USER_ID" in result.stderr
