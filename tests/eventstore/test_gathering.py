"""What is handed over in groups: nobody waits, the order is kept, nothing piles up."""

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import pytest

from eventstore import gathering
from eventstore.gathering import Gathering, TooManyWait, gathered

SECONDS = 5.0


@dataclass
class Recipient:
    """Takes what is delivered, one delivery at a time, when it is let."""

    deliveries: list[list[int]] = field(default_factory=list)
    began: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    may_end: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    errors: list[Exception] = field(default_factory=list)

    def deliver(self, numbers: Sequence[int]) -> None:
        self.began.release()
        assert self.may_end.acquire(timeout=SECONDS)
        if self.errors:
            raise self.errors.pop()
        self.deliveries.append(list(numbers))


@pytest.fixture
def recipient() -> Iterator[Recipient]:
    made = Recipient()
    yield made
    made.may_end.release(1_000)


@pytest.fixture
def numbers(recipient: Recipient) -> Gathering[int]:
    return Gathering("numbers", recipient.deliver, "numbers are lost")


def begin(numbers: Gathering[int], recipient: Recipient, number: int) -> None:
    numbers.add(number)
    assert recipient.began.acquire(timeout=SECONDS)


def test_what_comes_during_a_delivery_shares_the_next_one(
    numbers: Gathering[int], recipient: Recipient
) -> None:
    begin(numbers, recipient, 1)
    for number in (2, 3, 4):
        numbers.add(number)
    recipient.may_end.release(2)
    assert numbers.flush(SECONDS)
    assert recipient.deliveries == [[1], [2, 3, 4]]


def test_a_delivery_that_fails_is_lost_and_the_next_one_is_made(
    numbers: Gathering[int], recipient: Recipient, caplog: pytest.LogCaptureFixture
) -> None:
    recipient.errors.append(ConnectionError("nobody answers"))
    begin(numbers, recipient, 1)
    numbers.add(2)
    recipient.may_end.release(2)
    assert numbers.flush(SECONDS)
    assert recipient.deliveries == [[2]]
    assert caplog.messages == ["numbers are lost (1): nobody answers"]


def test_no_more_waits_than_its_bound(
    numbers: Gathering[int], recipient: Recipient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gathering, "WAITING_MAX", 2)
    begin(numbers, recipient, 1)
    numbers.add(2)
    numbers.add(3)
    with pytest.raises(TooManyWait):
        numbers.add(4)
    recipient.may_end.release(2)
    assert numbers.flush(SECONDS)
    assert recipient.deliveries == [[1], [2, 3]]


def test_a_flush_waits_for_what_is_under_way_and_not_for_ever(
    numbers: Gathering[int], recipient: Recipient
) -> None:
    assert numbers.flush(0)  # there is nothing to wait for
    begin(numbers, recipient, 1)
    assert not numbers.flush(0.05)
    recipient.may_end.release()
    assert numbers.flush(SECONDS)


def test_what_is_added_here_is_delivered_at_the_end_all_together_and_by_the_same_thread() -> None:
    deliveries: list[tuple[int, list[int]]] = []

    def deliver(numbers: Sequence[int]) -> None:
        deliveries.append((threading.get_ident(), list(numbers)))

    numbers = Gathering("numbers", deliver, "numbers are lost")
    with gathered(here=True):
        numbers.add(1)
        with gathered(here=True):
            numbers.add(2)
        assert deliveries == []
    assert deliveries == [(threading.get_ident(), [1, 2])]
    numbers.add(3)
    assert numbers.flush(SECONDS)
    assert [them for _, them in deliveries] == [[1, 2], [3]]
    assert deliveries[1][0] != threading.get_ident()


def test_who_delivers_here_does_not_wait_while_another_delivers(
    numbers: Gathering[int], recipient: Recipient
) -> None:
    begin(numbers, recipient, 1)
    with gathered(here=True):
        numbers.add(2)
        numbers.add(3)
    assert recipient.deliveries == []
    recipient.may_end.release(2)
    assert numbers.flush(SECONDS)
    assert recipient.deliveries == [[1], [2, 3]]


def test_what_comes_while_somebody_delivers_here_is_delivered_after_it(
    numbers: Gathering[int], recipient: Recipient
) -> None:
    def here() -> None:
        with gathered(here=True):
            numbers.add(1)

    thread = threading.Thread(target=here)
    thread.start()
    assert recipient.began.acquire(timeout=SECONDS)
    numbers.add(2)
    assert not numbers.flush(0.05)
    recipient.may_end.release(2)
    thread.join(SECONDS)
    assert numbers.flush(SECONDS)
    assert recipient.deliveries == [[1], [2]]


def test_what_is_lost_here_hurts_nobody(
    numbers: Gathering[int], recipient: Recipient, caplog: pytest.LogCaptureFixture
) -> None:
    recipient.errors.append(ConnectionError("nobody answers"))
    recipient.may_end.release(2)
    with gathered(here=True):
        numbers.add(1)
    with gathered(here=True):
        numbers.add(2)
    assert numbers.flush(SECONDS)
    assert recipient.deliveries == [[2]]
    assert caplog.messages == ["numbers are lost (1): nobody answers"]


def test_what_is_gathered_is_delivered_together_by_the_other_thread(
    numbers: Gathering[int], recipient: Recipient
) -> None:
    with gathered():
        numbers.add(1)
        with gathered(here=True):
            numbers.add(2)
        assert not recipient.began.acquire(timeout=0.05)
    # Nobody has been waited for.
    assert recipient.deliveries == []
    recipient.may_end.release()
    assert numbers.flush(SECONDS)
    assert recipient.deliveries == [[1, 2]]


def test_what_is_too_much_for_one_delivery_is_not_forgotten(
    numbers: Gathering[int], recipient: Recipient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gathering, "TOGETHER_MAX", 2)
    recipient.may_end.release(2)
    with gathered(here=True):
        for number in (1, 2, 3):
            numbers.add(number)
    assert recipient.began.acquire(timeout=SECONDS)
    assert recipient.began.acquire(timeout=SECONDS)
    assert numbers.flush(SECONDS)
    assert recipient.deliveries == [[1, 2], [3]]
