"""What a login needs, outside the log: a password hash is neither forever nor an event."""

from django.db import models


class Credential(models.Model):
    """How a user proves who they are, and whether they may; read on every request.

    Written in the same transaction as the events that say so.
    """

    user_id = models.UUIDField(primary_key=True)
    claim_id = models.UUIDField(unique=True, help_text="the stream of the name's claim")
    password_hash = models.TextField()
    jwt_epoch = models.IntegerField(default=0)
    active = models.BooleanField(default=True)
    role = models.TextField(default="member", help_text="member or staff")

    def __str__(self) -> str:
        return str(self.user_id)
