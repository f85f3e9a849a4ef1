"""The sealer: when it writes a checkpoint, over what, and what it does beside another one."""

import logging
import threading
from contextlib import closing
from dataclasses import replace

import pytest
from django.conf import settings
from django.db import connection

from eventstore.clock import LATEST
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


class TestAChainThatIsNotWhatItWas:
    """Whoever can write the database has no key: the sealer that runs must not lend it."""

    @pytest.fixture
    def clock(self) -> Steady:
        return Steady()

    @pytest.fixture
    def running(self, clock: Steady) -> Sealer:
        """A sealer that has written three checkpoints."""
        sealer = Sealer(SIGNER, clock)
        for number in range(3):
            fill(4, seed=number)
            self.go_on(sealer, clock)
        assert ranges() == [(1, 4), (5, 8), (9, 12)]
        return sealer

    @staticmethod
    def go_on(sealer: Sealer, clock: Steady, steps: int = 1) -> None:
        for _ in range(steps):
            clock.now += SEAL_SECONDS
            sealer.step()

    def refused(
        self, sealer: Sealer, clock: Steady, caplog: pytest.LogCaptureFixture
    ) -> tuple[int, str]:
        """How many checkpoints it has written, with events to seal, and what it has said."""
        before = CheckpointRecord.objects.count()
        fill(3, seed=9)
        with caplog.at_level(logging.ERROR, "eventstore.seals.sealer"):
            self.go_on(sealer, clock, steps=4)
        (said,) = caplog.messages
        assert said.endswith("nothing is sealed from there on; see manage.py verify --seals")
        return CheckpointRecord.objects.count() - before, said

    def test_removed_checkpoints_are_not_made_anew(
        self, running: Sealer, clock: Steady, caplog: pytest.LogCaptureFixture
    ) -> None:
        CheckpointRecord.objects.filter(number__gt=1).delete()
        EventRecord.objects.filter(position=6).update(actor="mallory")
        written, said = self.refused(running, clock, caplog)
        assert (written, ranges()) == (0, [(1, 4)])
        assert said.startswith("checkpoint 3, the newest one that was there, is gone")

    def test_nor_is_the_whole_chain(
        self, running: Sealer, clock: Steady, caplog: pytest.LogCaptureFixture
    ) -> None:
        CheckpointRecord.objects.all().delete()
        assert self.refused(running, clock, caplog)[0] == 0

    def test_what_it_only_saw_is_remembered_too(
        self, running: Sealer, clock: Steady, caplog: pytest.LogCaptureFixture
    ) -> None:
        other = Sealer(SIGNER, clock)
        self.go_on(other, clock)
        CheckpointRecord.objects.filter(number=3).delete()
        assert self.refused(other, clock, caplog)[0] == 0

    def test_another_row_in_its_place_is_not_gone_on_from(
        self, running: Sealer, clock: Steady, caplog: pytest.LogCaptureFixture
    ) -> None:
        replaced = read_checkpoint(3)
        assert replaced is not None
        replaced = replace(replaced, at=replaced.at + 1)
        CheckpointRecord.objects.filter(number=3).update(
            at=replaced.at, signature=OTHER_SIGNER.sign(replaced.message)
        )
        written, said = self.refused(running, clock, caplog)
        assert written == 0
        assert said.startswith("checkpoint 3 is not the one that was there")

    @pytest.mark.parametrize("column", ["root", "previous", "signature"])
    def test_a_newest_one_without_a_signature_that_fits_is_not_gone_on_from(
        self, running: Sealer, clock: Steady, caplog: pytest.LogCaptureFixture, column: str
    ) -> None:
        CheckpointRecord.objects.filter(number=3).update(**{column: bytes(32)})
        # One that begins now and remembers nothing.
        written, said = self.refused(Sealer(SIGNER, clock), clock, caplog)
        assert written == 0
        assert said.startswith("the signature of checkpoint 3 does not fit what it says")

    def test_one_that_is_signed_with_an_unknown_key_is_not_either(
        self, running: Sealer, clock: Steady, caplog: pytest.LogCaptureFixture
    ) -> None:
        newest = read_checkpoint(3)
        assert newest is not None
        newest = replace(newest, key_id=OTHER_SIGNER.key_id)
        CheckpointRecord.objects.filter(number=3).update(
            key_id=newest.key_id, signature=OTHER_SIGNER.sign(newest.message)
        )
        assert self.refused(Sealer(SIGNER, clock), clock, caplog)[0] == 0

    def test_an_end_of_the_log_before_that_of_the_chain_is_not(
        self, running: Sealer, clock: Steady, caplog: pytest.LogCaptureFixture
    ) -> None:
        EventRecord.objects.filter(position__gte=6).delete()
        written, said = self.refused(running, clock, caplog)
        assert written == 0
        assert said.startswith("checkpoint 3 seals events up to 12, which are not in the log")

    def test_what_another_sealer_wrote_meanwhile_is_followed(
        self, running: Sealer, clock: Steady, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("eventstore.seals.sealer.FOLLOWED_MAX", 2)
        for number in range(5):
            fill(1, seed=10 + number)
            seal(OTHER_SIGNER if number % 2 else SIGNER)
        fill(2, seed=20)
        self.go_on(running, clock, steps=3)
        assert ranges()[3:] == [(13, 13), (14, 14), (15, 15), (16, 16), (17, 17), (18, 19)]

    def test_what_another_one_wrote_that_does_not_follow_is_not(
        self, running: Sealer, clock: Steady, caplog: pytest.LogCaptureFixture
    ) -> None:
        for number in range(2):
            fill(1, seed=10 + number)
            seal()
        CheckpointRecord.objects.filter(number=4).delete()
        written, said = self.refused(running, clock, caplog)
        assert written == 0
        assert said.startswith("checkpoint 5 does not follow checkpoint 3")

    def test_once_the_chain_is_as_it_was_it_goes_on(
        self, running: Sealer, clock: Steady, caplog: pytest.LogCaptureFixture
    ) -> None:
        record = CheckpointRecord.objects.get(number=3)
        CheckpointRecord.objects.filter(number=3).delete()
        assert self.refused(running, clock, caplog)[0] == 0
        record.save(force_insert=True)
        self.go_on(running, clock)
        assert ranges()[2:] == [(9, 12), (13, 15)]

    def test_a_row_that_takes_the_place_of_the_next_one_is_complained_of(
        self, running: Sealer, clock: Steady, caplog: pytest.LogCaptureFixture
    ) -> None:
        taken = CheckpointRecord.objects.get(number=3)
        taken.number, taken.first, taken.last = -1, 13, 13
        taken.save(force_insert=True)
        written, said = self.refused(running, clock, caplog)
        assert written == 0
        assert said.startswith("checkpoint 4 finds its events sealed by another")


@pytest.mark.parametrize("at", [-1, LATEST + 1, 2**62])
def test_nothing_is_sealed_from_an_event_on_that_has_no_date(
    at: int, caplog: pytest.LogCaptureFixture
) -> None:
    append_jobs(events(count=3))
    EventRecord.objects.filter(position=2).update(at=at)
    with caplog.at_level(logging.ERROR, "eventstore.seals.sealer"):
        Sealer(SIGNER).step()
    assert ranges() == [(1, 1)]
    assert "event 2 is missing or damaged" in caplog.text
