"""How often one may guess at a password: at a login, and wherever else one is asked for.

A guess is counted right before its hash is computed, in the thread that computes it, so no number
of parallel guesses gets past the limit; a right one is given back, so who knows the password is
never refused for logging in often.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from uuid import UUID

from django.http import HttpRequest

from accounts.addresses import client_address
from accounts.commands import WrongCredentials, WrongPassword
from accounts.domain import AccountErased
from accounts.models import Credential
from accounts.rate_limits import LOGIN


@contextmanager
def counted_guess(request: HttpRequest, claim: UUID) -> Iterator[None]:
    """Let the block check a password for the name of this claim, or raise `RateLimited`.

    Whether there is such a name makes no difference.
    """
    give_back = LOGIN.take(request, f"{claim} {client_address(request)}")
    try:
        yield
    except (WrongCredentials, WrongPassword):
        raise
    except BaseException:
        give_back()
        raise
    give_back()


def claim_of(user_id: UUID) -> UUID:
    """The claim of a user's name, which all guesses at their password count for."""
    try:
        return Credential.objects.values_list("claim_id", flat=True).get(user_id=user_id)
    except Credential.DoesNotExist:
        raise AccountErased from None
