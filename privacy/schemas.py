"""What clients send about their own data."""

from pydantic import Field

from accounts.schemas import Attempt, Body


class EraseMe(Body):
    """The password, so that a stolen JWT erases nobody."""

    password: Attempt = Field(examples=["correct horse battery"])
