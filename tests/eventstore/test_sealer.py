"""The sealer: when it writes a checkpoint, over what, and what it does beside another one."""

import logging
import threading
from contextlib import closing

import pytest
from django.conf import settings
from django.db import connection

from eventstore.marker import appended
from eventstore.models import CheckpointRecord, EventRecord, SealKey
from eventstore.reading import clock_now
from eventstore.seals import merkle
from eventstore.seals.checkpoints import NO_PREVIOUS, latest, public_keys, read_checkpoint
from eventstore.seals.rows import leaf_hashes, read_rows
from eventstore.seals.sealer import SEAL_SECONDS, Sealer
from eventstore.seals.signing import Signatures
from tests.eventstore.making import append_jobs, events
from tests.eventstore.sealing import OTHER_SIGNER, SIGNER, Steady, fill, seal

pytestmark = pytest.mark.django_db(transaction=True)


def ranges() -> list[tuple[int, int]]:
    return list(CheckpointRecord.objects.order_by("number").values_list("first", "last"))


def test_an_empty_log_has_no_checkpoint() -> None:
    assert not Sealer(SIGNER).step()
    assert ranges() == []
    assert public_keys() == {}


def test_a_checkpoint_seals_what_is_stored_and_is_signed() -> None:
    append_jobs(events(count=3))
    assert not Sealer(SIGNER).step()
    checkpoint = latest()
    assert checkpoint is not None
    assert (checkpoint.number, checkpoint.first, checkpoint.last) == (1, 1, 3)
    assert checkpoint.previous == NO_PREVIOUS
    assert checkpoint.leaf_hashes == leaf_hashes(read_rows(0))
    assert checkpoint.root == merkle.root(checkpoint.leaf_hashes)
    assert EventRecord.objects.get(position=3).at <= checkpoint.at <= clock_now()
    assert public_keys() == {SIGNER.key_id: SIGNER.public_key}
    signatures = Signatures(public_keys())
    assert signatures.are_of(checkpoint.key_id, checkpoint.message, checkpoint.signature)


def test_what_comes_within_a_second_shares_a_checkpoint() -> None:
    clock = Steady()
    sealer = Sealer(SIGNER, clock)
    append_jobs(events())
    sealer.step()
    append_jobs(events())
    sealer.step()
    append_jobs(events())
    sealer.step()
    assert ranges() == [(1, 1)]
    clock.now += SEAL_SECONDS
    sealer.step()
    assert ranges() == [(1, 1), (2, 3)]


def test_a_thousand_events_do_not_wait_for_the_second_to_end() -> None:
    sealer = Sealer(SIGNER, Steady())
    append_jobs(events())
    sealer.step()
    fill(999)
    assert not sealer.step()
    assert ranges() == [(1, 1)]
    fill(1, seed=5)
    assert sealer.step()
    assert ranges() == [(1, 1), (2, 1001)]


def test_a_log_that_was_begun_before_there_were_seals_is_sealed_in_batches() -> None:
    fill(2_500)
    # Nothing is announced to a process that starts.
    appended._value = 0
    clock = Steady()
    sealer = Sealer(SIGNER, clock)
    assert [sealer.step() for _ in range(3)] == [True, True, False]
    clock.now += SEAL_SECONDS
    sealer.step()
    assert ranges() == [(1, 1000), (1001, 2000), (2001, 2500)]


def test_after_a_restart_the_chain_goes_on_where_it_ended() -> None:
    append_jobs(events(count=2))
    seal()
    append_jobs(events(count=3))
    seal()
    first, second = read_checkpoint(1), read_checkpoint(2)
    assert first is not None
    assert second is not None
    assert (second.first, second.last, second.previous) == (3, 5, first.hash)


def test_with_another_key_the_chain_goes_on_and_both_keys_stay_known() -> None:
    append_jobs(events())
    seal()
    append_jobs(events())
    seal(OTHER_SIGNER)
    first, second = read_checkpoint(1), read_checkpoint(2)
    assert first is not None
    assert second is not None
    assert (first.key_id, second.key_id) == (SIGNER.key_id, OTHER_SIGNER.key_id)
    assert second.previous == first.hash
    assert public_keys() == {each.key_id: each.public_key for each in (SIGNER, OTHER_SIGNER)}


def test_a_clock_that_goes_back_does_not_take_the_seals_with_it() -> None:
    append_jobs(events())
    an_hour_ahead = clock_now() + 3_600_000_000
    EventRecord.objects.update(at=an_hour_ahead)
    seal()
    append_jobs(events())
    seal()
    assert list(CheckpointRecord.objects.values_list("at", flat=True)) == [an_hour_ahead] * 2


def test_two_sealers_at_once_make_one_chain(monkeypatch: pytest.MonkeyPatch) -> None:
    fill(3_000)
    # Both have read the same end of the chain before either writes behind it.
    together = threading.Barrier(2)
    original = Sealer._write
    met: set[int] = set()

    def write(sealer: Sealer, checkpoint: object) -> bool:
        if id(sealer) not in met:
            met.add(id(sealer))
            together.wait(10)
        return original(sealer, checkpoint)  # type: ignore[arg-type]

    monkeypatch.setattr(Sealer, "_write", write)
    failures: list[BaseException] = []

    def follow() -> None:
        clock = Steady()
        sealer = Sealer(SIGNER, clock)
        try:
            with closing(connection):
                for _ in range(10):
                    sealer.step()
                    clock.now += SEAL_SECONDS
        except BaseException as error:  # noqa: BLE001 (it is the test that fails)
            failures.append(error)

    threads = [threading.Thread(target=follow) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert failures == []
    assert ranges() == [(1, 1000), (1001, 2000), (2001, 3000)]
    assert SealKey.objects.count() == 1


def test_the_loser_of_a_race_looks_again() -> None:
    append_jobs(events())
    clock = Steady()
    sealer = Sealer(SIGNER, clock)
    lost = Sealer(SIGNER)._checkpoint(None, [b"a leaf".ljust(32)], 0)
    sealer.step()
    assert not sealer._write(lost)
    append_jobs(events())
    clock.now += SEAL_SECONDS
    sealer.step()
    assert ranges() == [(1, 1), (2, 2)]


# PostgreSQL takes no value of another type.
@pytest.mark.parametrize("damage", ["missing", "malformed"] if settings.EMBEDDED else ["missing"])
def test_nothing_is_sealed_from_a_missing_or_damaged_event_on(
    damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    append_jobs(events(count=5))
    if damage == "missing":
        EventRecord.objects.filter(position=3).delete()
    else:
        with connection.cursor() as cursor:
            cursor.execute("UPDATE eventstore_event SET stream_id = 'x' WHERE position = 3")
    clock = Steady()
    sealer = Sealer(SIGNER, clock)
    with caplog.at_level(logging.ERROR, "eventstore.seals.sealer"):
        for _ in range(4):
            sealer.step()
            clock.now += SEAL_SECONDS
    assert ranges() == [(1, 2)]
    (said,) = caplog.messages
    assert "event 3 is missing or damaged" in said
