"""Users: who is registered."""

import pytest

from eventstore.reading import read_events
from projections.models import User
from tests.projections.story import ALICE, BOB, granted, projected, read, registered, rows

pytestmark = pytest.mark.django_db


def test_a_registration_is_a_row_with_its_place_in_the_log() -> None:
    projected(granted(ALICE, 1), registered(ALICE, "alice"), registered(BOB, "bob"))
    _, alice, bob = read_events(0)
    assert rows(User, "users", "user_id", "position", "created_at") == [
        (ALICE, 2, alice.at),
        (BOB, 3, bob.at),
    ]


def test_a_name_is_stored_as_it_stands_in_the_log() -> None:
    projected(registered(ALICE, "alice"))
    (event,) = read_events(0)
    (username,) = rows(User, "users", "username")
    assert bytes(username) == event.data["username"].pack()
    assert read([username]) == ["alice"]
