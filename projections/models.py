"""The read models' tables. Each row belongs to a generation; a pointer names the one that is read.

Times are microseconds since 1970-01-01 UTC. Personal text is stored as it stands in the log,
encrypted and packed with the place it is bound to: nothing here needs a key.
"""

from django.db import models


class Pointer(models.Model):
    """Which generation of a projection is read, and the newest one that was ever begun."""

    name = models.CharField(max_length=50, primary_key=True)
    generation = models.IntegerField()
    newest_generation = models.IntegerField()

    class Meta:
        db_table = "projections_pointer"

    def __str__(self) -> str:
        return f"{self.name} reads generation {self.generation}"


class Position(models.Model):
    """How far a generation has followed the log; it moves only together with the rows."""

    pk = models.CompositePrimaryKey("name", "generation")
    name = models.CharField(max_length=50)
    generation = models.IntegerField()
    position = models.BigIntegerField()
    version = models.IntegerField(help_text="of the projection's code that began the generation")

    class Meta:
        db_table = "projections_position"

    def __str__(self) -> str:
        return f"{self.name}, generation {self.generation}: {self.position}"


class ParkedEvent(models.Model):
    """An event that a projection could not handle, or that waits behind one of its stream."""

    pk = models.CompositePrimaryKey("projection", "generation", "stream_id", "position")
    projection = models.CharField(max_length=50)
    generation = models.IntegerField()
    stream_id = models.UUIDField()
    position = models.BigIntegerField()
    topic = models.TextField()
    error = models.TextField()

    class Meta:
        db_table = "projections_parked"

    def __str__(self) -> str:
        return f"{self.projection} parked {self.position}: {self.error}"


class User(models.Model):
    """A registered user, as `GET /users/` lists them; `position` is where they registered."""

    pk = models.CompositePrimaryKey("generation", "user_id")
    generation = models.IntegerField()
    user_id = models.UUIDField()
    position = models.BigIntegerField()
    username = models.BinaryField(null=True)
    created_at = models.BigIntegerField()

    class Meta:
        db_table = "projections_users"
        constraints = (
            models.UniqueConstraint(fields=["generation", "position"], name="users_oldest_first"),
        )

    def __str__(self) -> str:
        return str(self.user_id)


class Balance(models.Model):
    """A user's tokens."""

    pk = models.CompositePrimaryKey("generation", "user_id")
    generation = models.IntegerField()
    user_id = models.UUIDField()
    amount = models.BigIntegerField()

    class Meta:
        db_table = "projections_balances"

    def __str__(self) -> str:
        return f"{self.user_id}: {self.amount}"


class StatementEntry(models.Model):
    """A line of a user's statement; `entry` counts within the account, from 1.

    `balance` is the one after it. `reason` is the text that came with a grant, `code` the reason of
    a refund.
    """

    pk = models.CompositePrimaryKey("generation", "position")
    generation = models.IntegerField()
    position = models.BigIntegerField()
    user_id = models.UUIDField()
    entry = models.BigIntegerField()
    at = models.BigIntegerField()
    kind = models.CharField(max_length=20)
    amount = models.BigIntegerField()
    balance = models.BigIntegerField()
    message_id = models.UUIDField(null=True)
    reason = models.BinaryField(null=True)
    code = models.TextField(null=True)  # noqa: DJ001 (null unless it is a refund)

    class Meta:
        db_table = "projections_statement"
        constraints = (
            models.UniqueConstraint(
                fields=["generation", "user_id", "entry"], name="statement_in_order"
            ),
        )

    def __str__(self) -> str:
        return f"{self.user_id} {self.entry}: {self.kind} {self.amount}"


class Conversation(models.Model):
    """A conversation; `position` is where it started, `active` where something was last said."""

    pk = models.CompositePrimaryKey("generation", "conversation_id")
    generation = models.IntegerField()
    conversation_id = models.UUIDField()
    user_id = models.UUIDField()
    position = models.BigIntegerField()
    active = models.BigIntegerField()
    title = models.BinaryField(null=True)
    created_at = models.BigIntegerField()

    class Meta:
        db_table = "projections_conversations"
        indexes = (
            models.Index(
                fields=["generation", "user_id", "active"], name="conversations_most_active"
            ),
        )

    def __str__(self) -> str:
        return str(self.conversation_id)


class Message(models.Model):
    """A message with what became of it; `position` is where it was sent."""

    pk = models.CompositePrimaryKey("generation", "message_id")
    generation = models.IntegerField()
    message_id = models.UUIDField()
    user_id = models.UUIDField()
    conversation_id = models.UUIDField()
    position = models.BigIntegerField()
    message = models.BinaryField(null=True)
    response = models.BinaryField(null=True)
    status = models.CharField(max_length=20)
    cost = models.BigIntegerField()
    model = models.TextField(null=True)  # noqa: DJ001 (null until it ends, and after a failure)
    reason = models.TextField(null=True)  # noqa: DJ001 (null unless it failed)
    created_at = models.BigIntegerField()
    responded_at = models.BigIntegerField(null=True)

    class Meta:
        db_table = "projections_history"
        constraints = (
            models.UniqueConstraint(
                fields=["generation", "conversation_id", "position"], name="history_in_order"
            ),
        )

    def __str__(self) -> str:
        return f"{self.message_id}: {self.status}"


class PendingMessage(models.Model):
    """A message that has not ended yet.

    `conversation_id` is null in rows that were written before there was such a column.
    """

    pk = models.CompositePrimaryKey("generation", "message_id")
    generation = models.IntegerField()
    message_id = models.UUIDField()
    user_id = models.UUIDField()
    conversation_id = models.UUIDField(null=True)
    sent_at = models.BigIntegerField()
    deadline_at = models.BigIntegerField()

    class Meta:
        db_table = "projections_pending"
        indexes = (models.Index(fields=["generation", "sent_at"], name="pending_oldest_first"),)

    def __str__(self) -> str:
        return str(self.message_id)
