"""The tables of the log: events, snapshots and data keys. Nothing else in them is ever updated."""

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
    wrapped_by = models.UUIDField(null=True)
    wrapped = models.BinaryField(null=True)

    class Meta:
        db_table = "eventstore_datakey"

    def __str__(self) -> str:
        return str(self.id)
