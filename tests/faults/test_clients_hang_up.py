"""Clients hang up in the middle of a stream, or while they wait: the response is kept and paid for.

Those who come back, and workers that die meanwhile: tests/stack/test_resume.py.
"""

import random
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from devstack.model_scripts import TALE, says
from devstack.model_server import ModelServer
from tests.faults.checker import check
from tests.faults.counts import count, seeded
from tests.stack.client import User
from tests.stack.following import Follower
from tests.stack.services import FullService, wait_for

CLIENTS = count(short=30, full=300)
AT_ONCE = 30
CLIENTS_A_USER = 40
PIECES = TALE * 4
PIECE_SECONDS = 0.03
#: About half of what one stream has.
STREAM_BYTES = 30 * len(PIECES)


@pytest.mark.parametrize("how", ["stream", "wait"])
def test_a_client_that_hangs_up_and_never_comes_back_costs_and_keeps_the_response(
    told: FullService, model: ModelServer, how: str
) -> None:
    dice = seeded(f"hang up {how}")
    said = [f"{how} {number}" for number in range(CLIENTS)]
    model.scripts |= dict.fromkeys(said, says(*PIECES, every_seconds=PIECE_SECONDS))
    users = [told.user(f"leaves-{how}-{n}") for n in range(-(-CLIENTS // CLIENTS_A_USER))]
    hang_up = {"stream": from_the_stream, "wait": from_the_wait}[how]
    with ThreadPoolExecutor(AT_ONCE) as clients:
        gone = [
            clients.submit(hang_up, users[n // CLIENTS_A_USER], text, random.Random(dice.random()))
            for n, text in enumerate(said)
        ]
        for each in gone:
            each.result()
    hung_up_at = time.time()
    wait_for(lambda: set(said) <= {asked.text for asked in model.requests}, 30, "all to be asked")
    ledger = check(told)
    ends = []
    for user in users:
        for message_id in ledger.messages_of(user.id):
            end = ledger.end_of(message_id)
            ends.append(end)
            assert end.kind == "ResponseGenerated"
            assert ledger.refunds_of(message_id) == []
            shown = user.message(message_id)
            assert (shown["response"], shown["cost"]) == ("".join(PIECES), 100)
    assert len(ends) == CLIENTS
    # Nobody listened any more: the last ones came after everybody had gone.
    assert max(end.at for end in ends) / 1e6 > hung_up_at
    assert all(len(model_saw(model, text)) == 1 for text in said)


def from_the_stream(user: User, text: str, dice: random.Random) -> None:
    follower = Follower(user)
    follower.send(text)
    follower.read(bytes_max=dice.randrange(STREAM_BYTES))
    follower.hang_up()


def from_the_wait(user: User, text: str, dice: random.Random) -> None:
    """Give up waiting for the answer: the connection is closed, and nothing is said."""
    patience = httpx.Timeout(10.0, read=dice.uniform(0.3, 0.7 * len(PIECES) * PIECE_SECONDS))
    headers = {"Authorization": f"Bearer {user.jwt}"}
    with httpx.Client(verify=False, timeout=patience) as client, pytest.raises(httpx.ReadTimeout):
        client.post(f"{user.url}/send/", json={"message": text}, headers=headers)


def model_saw(model: ModelServer, text: str) -> list[object]:
    return [asked for asked in model.requests if asked.text == text]
