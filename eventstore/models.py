"""The tables of the log: events, snapshots, data keys, and the seals over the events."""

from django.db import models


class EventRecord(models.Model):
    """One event as it is stored: where it stands, what it says, and who caused it.

    Rows are written by `eventstore.append` alone, and never changed or removed.
    """

    position = models.BigAutoField(primary_key=True)
    stream_id = models.UUIDField()
    version = models.IntegerField()
    topic = models.TextField()
    data = models.BinaryField()
    at = models.BigIntegerField(
        help_text="microseconds since 1970-01-01 UTC, by the database's clock"
    )
    event_id = models.UUIDField()
    actor = models.TextField()
    request_id = models.TextField()
    causation_id = models.UUIDField(null=True)

    class Meta:
        db_table = "eventstore_event"
        constraints = [  # noqa: RUF012 (Django's own form)
            # The rule that decides every race: a version of a stream is written once.
            models.UniqueConstraint(fields=["stream_id", "version"], name="one_event_a_version"),
        ]

    def __str__(self) -> str:
        return f"{self.position} {self.topic}"


class SnapshotRecord(models.Model):
    """The state of an aggregate at a version: a shortcut, never the truth."""

    stream_id = models.UUIDField()
    version = models.IntegerField()
    topic = models.TextField()
    data = models.BinaryField()

    class Meta:
        db_table = "eventstore_snapshot"
        constraints = [  # noqa: RUF012 (Django's own form)
            models.UniqueConstraint(fields=["stream_id", "version"], name="one_snapshot_a_version"),
        ]

    def __str__(self) -> str:
        return f"{self.stream_id} {self.version}"


class DataKey(models.Model):
    """A key that encrypts personal text, wrapped by another key.

    `wrapped_by` names the key that wraps it; null means the operator's `DATA_KEY`. A destroyed key
    keeps its row with `wrapped` null, so that "destroyed" and "not found" are two answers.
    """

    id = models.UUIDField(primary_key=True)
    wrapped_by = models.UUIDField(null=True, db_index=True)
    wrapped = models.BinaryField(null=True)

    class Meta:
        db_table = "eventstore_datakey"

    def __str__(self) -> str:
        return str(self.id)


class Destruction(models.Model):
    """A key that was destroyed, until the file of erasures names it and no file of the database
    holds its bytes any more. `key_id` is the user's id, or that of one of their conversations.
    """

    key_id = models.UUIDField(primary_key=True)
    user_id = models.UUIDField()
    at = models.BigIntegerField()

    class Meta:
        db_table = "eventstore_destruction"

    def __str__(self) -> str:
        return str(self.key_id)


class CheckpointRecord(models.Model):
    """A seal over the events from `first` to `last`, both included; see `eventstore.seals`.

    Numbered from 1 without a gap. `leaves` holds the leaf hashes, 32 bytes each, in the order of
    the positions. `previous` is the hash of the checkpoint before, 32 zero bytes for the first.
    """

    number = models.BigIntegerField(primary_key=True)
    first = models.BigIntegerField(unique=True)
    last = models.BigIntegerField(unique=True)
    root = models.BinaryField()
    leaves = models.BinaryField()
    previous = models.BinaryField()
    at = models.BigIntegerField()
    key_id = models.TextField()
    signature = models.BinaryField()

    class Meta:
        db_table = "eventstore_checkpoint"

    def __str__(self) -> str:
        return f"{self.number}: {self.first} to {self.last}"


class SealKey(models.Model):
    """A public key that checkpoints were signed with; `id` is made from the key itself."""

    id = models.TextField(primary_key=True)
    public_key = models.BinaryField()

    class Meta:
        db_table = "eventstore_sealkey"

    def __str__(self) -> str:
        return self.id
