"""`manage.py audit`: a user's statement out of the log, and what the read models say to it."""

import io
import json
import random
from collections.abc import Iterator
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from django.core.management import CommandError, call_command
from django.db import connection
from rich.console import Console

from accounts.names import claim_id
from audit.management.commands.audit import show
from audit.statements import audit
from eventstore import keys
from eventstore.models import DataKey, EventRecord
from eventstore.reading import read_events
from projections.balances import Balances
from projections.models import Balance, StatementEntry
from projections.queries.statements import every
from projections.rebuild import rebuild
from projections.registry import PROJECTIONS
from projections.runner import ProjectionRunner
from tests.isolation import forget_the_database
from tests.projections.story import (
    ALICE,
    BOB,
    HELLO,
    NOBODY,
    Fact,
    Personal,
    broken,
    debited,
    drain,
    granted,
    happened,
    moment,
    projected,
    refunded,
    registered,
    started,
)

pytestmark = pytest.mark.django_db

SEED = 20261122


@pytest.fixture(autouse=True)
def new_memory() -> Iterator[None]:
    """Each test begins with an empty database, so with a process that remembers nothing."""
    forget_the_database()
    yield
    forget_the_database()


def claimed(user: UUID, username: str) -> Fact:
    said = {"user_id": str(user)}
    return Fact(claim_id(username), "chatledger.accounts.UsernameClaimed", said)


def erased(user: UUID) -> Fact:
    return Fact(user, "chatledger.accounts.UserErased", {"conversation_ids": []})


@pytest.fixture
def alice() -> None:
    """Alice was granted 500, paid 100 and got 40 back; Bob has been granted 7."""
    projected(claimed(ALICE, "alice"), registered(ALICE, "Alice"), granted(ALICE, 500))
    projected(registered(BOB, "bob"), granted(BOB, 7), debited(ALICE, 100), refunded(ALICE, 40))


def printed(*arguments: str) -> list[str]:
    """What the command prints when all is well."""
    out = io.StringIO()
    call_command("audit", *arguments, stdout=out)
    return out.getvalue().splitlines()


def refused(*arguments: str) -> str:
    """The one line with which the command fails."""
    with pytest.raises(CommandError) as error:
        call_command("audit", *arguments)
    assert "\n" not in str(error.value)
    return str(error.value)


def printed_with_differences(*arguments: str) -> list[str]:
    """What the command prints when it exits with status 1."""
    out = io.StringIO()
    with pytest.raises(SystemExit) as stopped:
        call_command("audit", *arguments, stdout=out)
    assert stopped.value.code == 1
    return out.getvalue().splitlines()


def differences(user: str = "alice") -> list[str]:
    return printed_with_differences(user)[-1:]


def time_of(position: int) -> str:
    return f"{moment(position):%Y-%m-%dT%H:%M:%S.%fZ}"


class TestLines:
    def test_every_line_says_when_and_where_it_came_from(self, alice: None) -> None:
        head, headings, *lines, balance, agreement = printed("alice")
        assert head == f"Alice ({ALICE}), registered at {time_of(2)}"
        assert headings == "entry\tposition\ttime\tkind\tamount\tbalance\tmessage\treason"
        assert lines == [
            f"1\t3\t{time_of(3)}\tgranted\t500\t500\t\tsignup",
            f"2\t6\t{time_of(6)}\tdebited\t100\t400\t{HELLO}\t",
            f"3\t7\t{time_of(7)}\trefunded\t40\t440\t{HELLO}\tdeadline",
        ]
        assert balance.startswith("balance at 20")
        assert balance.endswith("Z: 440 tokens, after entry 3")
        assert agreement == "the read models are at position 7 and agree with the log"

    def test_an_account_without_a_movement_has_none(self) -> None:
        projected(registered(ALICE, "alice"))
        _, _, balance, _ = printed(str(ALICE))
        assert balance.endswith("Z: 0 tokens, before any entry")

    def test_it_needs_no_read_model(self) -> None:
        happened(registered(ALICE), granted(ALICE, 500))
        *_, balance, agreement = printed(str(ALICE))
        assert balance.endswith("Z: 500 tokens, after entry 1")
        assert agreement == "the read models are at position 0 and agree with the log"

    def test_other_events_of_the_account_are_no_lines(self, alice: None) -> None:
        projected(Fact(ALICE, "chatledger.accounts.JwtsRevoked", {"epoch": 1}))
        assert len(audit("alice").account.lines) == 3

    def test_a_long_account_is_read_in_pages(
        self, alice: None, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        whole = audit("alice").account
        for module in ("eventstore.reading", "audit.statements"):
            monkeypatch.setattr(f"{module}.READ_MAX", 2)
        assert audit("alice").account == whole
        assert audit("alice").differences == []

    def test_what_would_move_the_cursor_is_written_out(self) -> None:
        fact = granted(ALICE, 5)
        fact.said["reason"] = Personal("a\tb\n\x1b[31m[bold]é", ALICE)
        projected(registered(ALICE), fact)
        assert printed(str(ALICE))[2].endswith("\ta\\tb\\n\\x1b[31m[bold]é")

    def test_an_event_that_does_not_say_its_amount_is_named(self) -> None:
        happened(registered(ALICE), broken(debited(ALICE, 1)))
        assert refused(str(ALICE)).startswith("event 2 (chatledger.accounts.TokensDebited) does")


class TestUser:
    @pytest.mark.parametrize("user", ["alice", "ALICE", str(ALICE), ALICE.hex])
    def test_a_user_is_named_by_id_or_by_name_in_any_case(self, alice: None, user: str) -> None:
        assert audit(user).account.user_id == ALICE

    def test_of_an_id_that_is_a_name_too_it_has_to_be_said_which_is_meant(
        self, alice: None
    ) -> None:
        projected(registered(BOB), claimed(BOB, str(ALICE)))
        assert refused(str(ALICE)).endswith(f"; say id:{ALICE} or name:{ALICE}")
        assert audit(f"id:{ALICE}").account.user_id == ALICE
        assert audit(f"name:{ALICE}").account.user_id == BOB

    def test_a_name_may_look_like_an_id(self, alice: None) -> None:
        projected(claimed(BOB, NOBODY.hex))
        assert audit(NOBODY.hex).account.user_id == BOB

    @pytest.mark.parametrize(
        "user", ["carol", str(NOBODY), str(HELLO), "", "a b", "\0", "x" * 10_000, "\udcff"]
    )
    def test_an_unknown_one_is_one_line(self, alice: None, user: str) -> None:
        projected(started(HELLO))
        assert refused(user) == f"there is no user {user!r}"

    def test_in_an_empty_log_there_is_nobody_and_nothing_is_written(self) -> None:
        assert refused("alice") == "there is no user 'alice'"
        assert not DataKey.objects.exists()

    def test_an_erased_one_is_found_by_the_name_and_has_all_amounts(self, alice: None) -> None:
        DataKey.objects.filter(id=ALICE).update(wrapped=None)
        StatementEntry.objects.filter(user_id=ALICE).update(reason=None)
        keys.forget()
        head, _, *lines, _, agreement = printed("alice")
        assert head.startswith(f"[erased] ({ALICE}), registered at ")
        assert [line.split("\t")[4:] for line in lines] == [
            ["500", "500", "", "[erased]"],
            ["100", "400", str(HELLO), ""],
            ["40", "440", str(HELLO), "deadline"],
        ]
        assert agreement.endswith("agree with the log")


class TestAt:
    def test_the_balance_is_the_one_of_that_time_and_all_lines_are_there(self, alice: None) -> None:
        lines = printed("alice", "--at", time_of(6))
        assert lines[-2] == f"balance at {time_of(6)}: 400 tokens, after entry 2"
        assert len(lines) == 2 + 3 + 2

    def test_between_two_lines_it_is_the_balance_after_the_first(self, alice: None) -> None:
        before = moment(6) - timedelta(microseconds=1)
        assert printed("alice", "--at", before.isoformat())[-2].endswith(
            "500 tokens, after entry 1"
        )

    def test_a_registration_comes_before_its_grant(self, alice: None) -> None:
        assert audit("alice", microseconds(2)).balance == 0

    def test_before_the_account_existed_is_one_line(self, alice: None) -> None:
        before = moment(2) - timedelta(microseconds=1)
        said = refused("alice", "--at", before.isoformat())
        assert said == f"the account was opened at {time_of(2)}, not before"
        assert refused("alice", "--at", "0001-01-01T00:00:00+14:00") == said

    def test_the_future_is_one_line(self, alice: None) -> None:
        said = refused("alice", "--at", "2999-01-01T00:00:00Z")
        assert said.startswith("--at 2999-01-01T00:00:00Z: this time has not come yet: it is 20")

    @pytest.mark.parametrize("at", ["", "yesterday", "2026-11-22", "2026-11-22T10:00:00"])
    def test_what_is_no_time_is_one_line(self, alice: None, at: str) -> None:
        assert refused("alice", "--at", at).startswith(f"--at {at}: a time ")

    def test_at_any_time_it_is_the_sum_of_the_log(self) -> None:
        chance = random.Random(SEED)
        happened(registered(ALICE), registered(BOB))
        for _ in range(40):
            kind = chance.choice([granted, debited, refunded])
            happened(*(kind(chance.choice([ALICE, BOB]), chance.randint(0, 99)) for _ in range(3)))
        log = read_events(0)
        for event in log:
            account = audit(str(ALICE), event.at)
            wanted = sum(
                -each.data["amount"] if each.topic.endswith("Debited") else each.data["amount"]
                for each in log
                if each.stream_id == ALICE and each.at <= event.at and "amount" in each.data
            )
            assert account.balance == wanted, f"seed {SEED}"


class TestReadModels:
    @pytest.mark.parametrize(
        ("change", "said"),
        [
            ({"balance": 401}, "balance is 401, by the log 400"),
            ({"amount": 1, "kind": "granted"}, "kind is granted, by the log debited; amount is 1,"),
            ({"message_id": NOBODY}, f"message_id is {NOBODY}, by the log {HELLO}"),
            ({"message_id": None}, f"message_id is nothing, by the log {HELLO}"),
            ({"at": 0}, "at is 1970-01-01T00:00:00.000000Z, by the log 20"),
            ({"at": 2**62}, f"at is {2**62}, by the log 20"),
            ({"entry": 9}, "entry is 9, by the log 2"),
            ({"code": "x"}, "code is x, by the log nothing"),
            ({"reason": b"x"}, "reason is another text than in the log"),
        ],
    )
    def test_a_changed_row_of_the_statement_is_named(
        self, alice: None, change: dict[str, Any], said: str
    ) -> None:
        StatementEntry.objects.filter(position=6).update(**change)
        *_, verdict, difference = printed_with_differences("alice")
        assert verdict == "the read models are at position 7 and differ from the log"
        assert difference.startswith(f"statement: entry 2 (position 6): {said}")

    def test_a_changed_reason_is_named(self, alice: None) -> None:
        StatementEntry.objects.filter(position=3).update(reason=b"x")
        assert differences() == [
            "statement: entry 1 (position 3): reason is another text than in the log"
        ]

    def test_a_missing_row_is_named(self, alice: None) -> None:
        StatementEntry.objects.filter(position=6).delete()
        assert differences() == ["statement: entry 2 (position 6) is missing"]

    def test_a_row_that_the_log_does_not_have_is_named(self, alice: None) -> None:
        StatementEntry.objects.filter(position=5).update(user_id=ALICE, entry=4)
        assert differences() == ["statement: entry 4 (position 5) is not in the log"]

    def test_a_changed_balance_is_named(self, alice: None) -> None:
        Balance.objects.filter(user_id=ALICE).update(amount=1)
        assert differences() == ["balances: amount is 1, by the log 440"]

    def test_a_missing_balance_is_named(self, alice: None) -> None:
        Balance.objects.filter(user_id=ALICE).delete()
        assert differences() == ["balances: amount is nothing, by the log 440"]

    def test_every_difference_is_named(self, alice: None) -> None:
        StatementEntry.objects.filter(user_id=ALICE).update(amount=1)
        Balance.objects.filter(user_id=ALICE).update(amount=1)
        assert [line.partition(" is ")[0] for line in printed_with_differences("alice")[-4:]] == [
            "balances: amount",
            "statement: entry 1 (position 3): amount",
            "statement: entry 2 (position 6): amount",
            "statement: entry 3 (position 7): amount",
        ]

    def test_other_accounts_do_not_count(self, alice: None) -> None:
        StatementEntry.objects.filter(user_id=BOB).update(balance=1)
        Balance.objects.filter(user_id=BOB).update(amount=1)
        assert audit("alice").differences == []

    def test_events_behind_their_position_are_not_compared(self, alice: None) -> None:
        happened(debited(ALICE, 100))
        *_, balance, agreement = printed("alice")
        assert balance.endswith("340 tokens, after entry 4")
        assert agreement == "the read models are at position 7 and agree with the log"

    def test_read_models_that_stand_elsewhere_are_compared_where_they_are(
        self, alice: None
    ) -> None:
        happened(debited(ALICE, 100))
        others = {name: each for name, each in PROJECTIONS.items() if each is not Balances}
        drain(ProjectionRunner(others))
        assert printed("alice")[-1] == (
            "the read models are at positions 7 (balances) and 8 (statement) and agree with the log"
        )

    def test_rows_that_come_while_they_are_read_are_not_compared(
        self, alice: None, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        debits = iter([debited(ALICE, 1)] * 3)

        def every_after_a_debit(*query: Any) -> list[Any]:
            projected(*(debit for debit in [next(debits, None)] if debit))
            return every(*query)

        monkeypatch.setattr("audit.statements.every", every_after_a_debit)
        audited = audit("alice")
        assert audited.account.lines[-1].position > audited.positions["statement"] == 7
        assert audited.differences == []

    def test_an_account_that_is_not_shown_yet_is_no_difference(self, alice: None) -> None:
        happened(registered(NOBODY), granted(NOBODY, 5))
        assert printed(str(NOBODY))[-1].endswith("agree with the log")

    def test_a_parked_account_is_a_difference(self, monkeypatch: pytest.MonkeyPatch) -> None:
        with monkeypatch.context() as patched:
            patched.setattr("projections.statement.DEBITED", {"no": "word"})
            projected(registered(ALICE), granted(ALICE, 500), debited(ALICE, 100))
        assert differences(str(ALICE)) == [
            "statement: the account is parked: TypeError: dict in a column of text"
        ]

    def test_an_erased_account_has_no_row_and_that_is_right(self, alice: None) -> None:
        projected(erased(ALICE))
        *lines, balance, agreement = printed("alice")
        assert len(lines) == 2 + 3
        assert balance.endswith("440 tokens, after entry 3")
        assert agreement == "the read models are at position 8 and agree with the log"

    def test_until_a_read_model_has_come_to_the_erasure_its_rows_are_right(
        self, alice: None
    ) -> None:
        happened(erased(ALICE))
        assert printed("alice")[-1].endswith("at position 7 and agree with the log")
        others = {name: each for name, each in PROJECTIONS.items() if each is not Balances}
        drain(ProjectionRunner(others))
        assert printed("alice")[-1].endswith(
            "7 (balances) and 8 (statement) and agree with the log"
        )
        Balance.objects.filter(user_id=ALICE).delete()
        assert differences() == ["balances: amount is nothing, by the log 440"]

    def test_rows_that_outlive_an_erasure_are_named(self, alice: None) -> None:
        kept = [*Balance.objects.filter(user_id=ALICE)]
        entries = [*StatementEntry.objects.filter(user_id=ALICE, position=6)]
        projected(erased(ALICE))
        Balance.objects.bulk_create(kept)
        StatementEntry.objects.bulk_create(entries)
        assert printed_with_differences("alice")[-2:] == [
            "balances: amount is 440, by the log nothing",
            "statement: entry 2 (position 6) is still there, by the log the account is erased",
        ]

    def test_rows_that_are_swapped_meanwhile_are_read_again(
        self, alice: None, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        rebuilds = 0

        def every_after_a_rebuild(*query: Any) -> list[Any]:
            nonlocal rebuilds
            if rebuilds:
                rebuilds -= 1
                rebuild(PROJECTIONS)
            return every(*query)

        monkeypatch.setattr("audit.statements.every", every_after_a_rebuild)
        rebuilds = 1
        assert audit("alice").differences == []
        rebuilds = 100
        assert refused("alice") == "the read model statement is being rebuilt: try again"


class TestForms:
    def test_json_is_one_object(self, alice: None) -> None:
        (text,) = printed("alice", "--json", "--at", time_of(6))
        found = json.loads(text)
        assert found.pop("entries")[1] == {
            "entry": 2,
            "position": 6,
            "at": time_of(6),
            "kind": "debited",
            "amount": 100,
            "balance": 400,
            "message_id": str(HELLO),
            "reason": None,
        }
        assert found == {
            "user_id": str(ALICE),
            "username": "Alice",
            "registered_at": time_of(2),
            "at": time_of(6),
            "balance": 400,
            "entry": 2,
            "read_models": {
                "positions": {"balances": 7, "statement": 7},
                "agree": True,
                "differences": [],
            },
        }

    def test_json_names_differences_and_the_exit_status_does_too(self, alice: None) -> None:
        Balance.objects.filter(user_id=ALICE).update(amount=1)
        (text,) = printed_with_differences("alice", "--json")
        assert json.loads(text)["read_models"] == {
            "positions": {"balances": 7, "statement": 7},
            "agree": False,
            "differences": ["balances: amount is 1, by the log 440"],
        }

    def test_json_without_an_entry_says_so(self) -> None:
        projected(registered(ALICE))
        found = json.loads(printed(str(ALICE), "--json")[0])
        assert (found["balance"], found["entry"], found["entries"]) == (0, None, [])

    def test_a_terminal_gets_a_table_whose_texts_are_no_markup(self) -> None:
        fact = granted(ALICE, 5)
        fact.said["reason"] = Personal("[red]gift[/red]", ALICE)
        projected(registered(ALICE, "alice"), fact)
        Balance.objects.update(amount=1)
        out = io.StringIO()
        show(audit(str(ALICE)), Console(file=out, width=160))
        text = out.getvalue()
        assert "│ granted │" in text
        assert "[red]gift[/red]" in text
        assert text.startswith(f"alice ({ALICE}), registered at ")
        assert text.rstrip().endswith("balances: amount is 1, by the log 5")


class TestRefusals:
    def test_without_its_key_it_says_so(self, alice: None, settings: Any) -> None:
        del settings.DATA_KEY
        assert refused("alice") == "DATA_KEY is missing: it opens the texts of the log"

    def test_with_another_key_it_says_so(self, alice: None, settings: Any) -> None:
        settings.DATA_KEY = bytes(32)
        keys.forget()
        assert refused("alice").startswith("DATA_KEY does not open key ")

    def test_an_event_that_is_no_json_is_one_line(self, alice: None) -> None:
        EventRecord.objects.filter(position=6).update(data=b"{")
        assert refused("alice").startswith("an event of this account cannot be read: ")

    def test_without_tables_it_says_so(self) -> None:
        with connection.cursor() as cursor:
            cursor.execute("ALTER TABLE eventstore_event RENAME TO gone")
        said = refused(str(ALICE))
        assert said.startswith("the database cannot be used: ")


def microseconds(position: int) -> int:
    return read_events(position - 1, upto=position)[0].at
