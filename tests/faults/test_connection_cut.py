"""The connection to PostgreSQL is cut when a commit was sent and its answer has not come back."""

import statistics
import time

import httpx

from tests.faults.checker import check
from tests.faults.counts import SIGNUP_TOKENS, count
from tests.faults.journal import Journal
from tests.faults.proxied import ProxiedService
from tests.figures import Figure
from tests.stack.client import PASSWORD, User

CUTS = count(short=20, full=200)
ENDS_CUT = count(short=5, full=100)
REGISTRATIONS_CUT = count(short=3, full=50)
#: A message is not swept before.
SWEPT_SECONDS_MIN = 2.0


def test_a_send_whose_commit_was_not_confirmed_is_debited_once(
    shared: ProxiedService, figure: Figure
) -> None:
    user, journal = shared.user("cut"), Journal()
    answered = []
    for number in range(CUTS):
        # Every third time the append itself got lost.
        trap = shared.postgres("web-1").cut_when("chatledger_append", forwarded=number % 3 != 2)
        began = time.monotonic()
        assert journal.send_again(user, f"message {number}", f"cut-{number}").accepted
        answered.append(time.monotonic() - began)
        assert trap.cuts == 1
    figure("seconds to the answer of a send whose commit was cut", answered)
    # None of them waited for the sweeper to notice it.
    assert statistics.median(answered) < SWEPT_SECONDS_MIN
    assert shared.ledger().balance_of(user.id) == SIGNUP_TOKENS - CUTS
    assert len(check(shared, journal).messages_of(user.id)) == CUTS


def test_a_response_whose_commit_was_not_confirmed_ends_its_message_once(
    shared: ProxiedService, figure: Figure
) -> None:
    user, journal = shared.user("cut-end"), Journal()
    answered = []
    for number in range(ENDS_CUT):
        traps = [
            shared.postgres(worker).cut_when("chatledger_append")
            for worker in ("worker-1", "worker-2")
        ]
        began = time.monotonic()
        assert journal.send(user, "hello", f"end-{number}", prefer="wait=30").status == 201
        answered.append(time.monotonic() - began)
        assert sum(trap.cuts for trap in traps) == 1
        for trap in traps:
            trap.disarm()
    figure("seconds to a response whose commit was cut", answered)
    check(shared, journal)


def test_a_registration_whose_commit_was_not_confirmed_is_one_account_and_one_grant(
    shared: ProxiedService,
) -> None:
    for number in range(REGISTRATIONS_CUT):
        name = f"cut-registration-{number}"
        credentials = {"username": name, "password": PASSWORD}
        trap = shared.postgres("web-1").cut_when("COMMIT")
        first = httpx.post(f"{shared.url}/users/register/", json=credentials, timeout=30)
        assert trap.cuts == 1
        assert first.status_code in (201, 503)
        again = httpx.post(f"{shared.url}/users/register/", json=credentials, timeout=30)
        assert again.status_code == 409
        answer = httpx.post(f"{shared.url}/users/login/", json=credentials, timeout=30)
        jwt = answer.json()["token"]
        me = httpx.get(
            f"{shared.url}/users/me/", headers={"Authorization": f"Bearer {jwt}"}, timeout=30
        )
        assert me.json()["tokens"] == SIGNUP_TOKENS
        shared.users.append(User(shared.url, name, me.json()["id"], jwt))
    check(shared)
