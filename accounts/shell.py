"""What management commands about users share: whom they mean, and how they say that it cannot be.

A refusal is one line, and the exit status is not 0.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar
from uuid import UUID

from django.conf import settings
from django.core.management.base import CommandError
from django.db import DatabaseError
from pydantic import BaseModel, ValidationError

from accounts.commands import UserNotFound
from accounts.names import AmbiguousUser, find_user
from eventstore.database import StoreUnavailable
from eventstore.keys import KeyUnreadable

TBody = TypeVar("TBody", bound=BaseModel)


@contextmanager
def one_line() -> Iterator[None]:
    """Say in one line why the block could not go on."""
    if not hasattr(settings, "DATA_KEY"):
        raise CommandError("DATA_KEY is missing: give it as the service has it")
    try:
        yield
    except (DatabaseError, StoreUnavailable) as error:
        raise CommandError(f"the database cannot be used: {_line(error)}") from error
    except KeyUnreadable as error:
        raise CommandError(_line(error)) from error
    except UserNotFound as error:
        raise CommandError(f"there is no user {_line(error)}") from error
    except AmbiguousUser as error:
        raise CommandError(_line(error)) from error


def user_called(name_or_id: str) -> UUID:
    """The user of this name or id. Raises `UserNotFound` and `AmbiguousUser`."""
    user_id = find_user(name_or_id)
    if user_id is None:
        raise UserNotFound(ascii(name_or_id))
    return user_id


def checked(kind: type[TBody], **values: object) -> TBody:
    """The body that an endpoint would be sent, by the same rules."""
    try:
        return kind(**values)
    except ValidationError as error:
        first = error.errors()[0]
        raise CommandError(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from error


def shown(name_or_id: str, user_id: UUID) -> str:
    """A user as a command names them: as they were called, and by id."""
    called = name_or_id.removeprefix("id:")
    return called if called == str(user_id) else f"{called.removeprefix('name:')} ({user_id})"


def _line(error: Exception) -> str:
    return " ".join(str(error).split())
