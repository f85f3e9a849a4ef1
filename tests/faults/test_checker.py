"""The checker itself: it is content with a sound service, and finds each thing that is not so."""

import dataclasses

import pytest

from tests.faults.api_check import api_violations
from tests.faults.checker import check
from tests.faults.counts import seeded
from tests.faults.journal import Journal
from tests.faults.proxied import ProxiedService


def test_it_finds_what_the_api_and_the_clients_say_otherwise_than_the_log(
    shared: ProxiedService,
) -> None:
    journal = Journal()
    alice, bob = shared.user("alice"), shared.user("bob")
    for number in range(3):
        journal.send(alice, f"hello {number}", f"key-{number}")
    journal.send(bob, "hello", "key-0")
    accepted = journal.send(bob, "bye", "key-1")
    assert [entry.status for entry in journal.entries] == [201] * 5
    carol = shared.user("carol")
    deleted = carol.post("/conversations/", {}).json()["id"]
    assert carol.post(f"/conversations/{deleted}/messages/", {"message": "x"}).status_code == 201
    assert carol.delete(f"/conversations/{deleted}/").status_code == 204
    ledger = check(shared, journal)

    debit, _ = [line for line in ledger.of("TokensDebited") if line.stream == bob.id]
    debit.data["amount"] += 1
    sent, _ = [line for line in ledger.of("MessageSent") if line.data["user_id"] == bob.id]
    found = api_violations(ledger, [alice, bob], {sent.stream: "another text"})
    assert [each.split(" shows")[0] for each in found] == [
        "api: bob: tokens",
        "api: bob: statement",
        f"api: bob: the text of {sent.stream}",
    ]
    stranger = dataclasses.replace(bob, jwt="void")
    assert api_violations(ledger, [stranger]) == ["api: bob is refused without a reason in the log"]

    journal.entries.remove(accepted)
    assert journal.violations(ledger) == [
        f"6: nobody sent {accepted.message_id}, which is in the log"
    ]
    journal.entries.append(dataclasses.replace(accepted, status=402))
    assert [each[:2] for each in journal.violations(ledger)] == ["5:", "6:"]
    journal.entries[-1] = dataclasses.replace(accepted, key="lost")
    with pytest.raises(AssertionError, match="is not in the log"):
        check(shared, journal)


def test_the_same_seed_makes_the_same_choices() -> None:
    assert seeded("one").random() == seeded("one").random()
    assert seeded("one").random() != seeded("another").random()
