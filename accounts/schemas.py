"""What clients send about accounts and get back; plain models, since Ninja's own validate twice."""

from datetime import datetime
from typing import Annotated
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from accounts.grants import GRANT_TOKENS_MAX, REASON_CHARACTERS_MAX
from accounts.names import USERNAME_PATTERN

PASSWORD_CHARACTERS_MIN = 8
PASSWORD_CHARACTERS_MAX = 1024


class Body(BaseModel):
    """A JSON body: what it does not name is refused, and nothing is converted."""

    model_config = ConfigDict(extra="forbid", strict=True, hide_input_in_errors=True)


class Answer(BaseModel):
    """A JSON answer, read from any object with attributes of the same names."""

    model_config = ConfigDict(from_attributes=True)


Username = Annotated[
    str,
    Field(
        pattern=USERNAME_PATTERN,
        description="3 to 50 of A-Z a-z 0-9 _ . -; unique whatever the case",
        examples=["alice"],
    ),
]
NewPassword = Annotated[
    str,
    Field(
        min_length=PASSWORD_CHARACTERS_MIN,
        max_length=PASSWORD_CHARACTERS_MAX,
        description="8 to 1024 characters, neither common nor only digits",
        examples=["correct horse battery"],
    ),
]
# At login any text may be tried: a name or a password that nobody can have is a wrong one.
Attempt = Annotated[str, Field(max_length=PASSWORD_CHARACTERS_MAX)]
Tokens = Annotated[int, Field(description="tokens of balance", examples=[3900])]


class Register(Body):
    """A new account."""

    username: Username
    password: NewPassword


class Registered(Answer):
    """The account that was opened, with its signup grant."""

    id: UUID
    username: str = Field(examples=["alice"])
    tokens: Tokens = Field(examples=[4000])


class LogIn(Body):
    """A name and its password."""

    username: Attempt = Field(examples=["alice"])
    password: Attempt = Field(examples=["correct horse battery"])


class LoggedIn(Answer):
    """A JWT, to be sent as `Authorization: Bearer <JWT>`."""

    token: str = Field(description="the JWT", examples=["eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.…"])
    expires_in: int = Field(description="seconds", examples=[3600])


class User(Answer):
    """A user as everybody sees them."""

    id: UUID
    username: str = Field(examples=["alice"])
    created_at: datetime


class Me(User):
    """A user as they see themselves."""

    tokens: Tokens
    role: str = Field(description="`member` or `staff`", examples=["member"])


class Balance(Answer):
    """A balance."""

    tokens: Tokens


class BalanceAt(Balance):
    """A balance as it was."""

    at: datetime = Field(description="the time that was asked for, in UTC")


class StatementEntry(Answer):
    """A movement of tokens, with the balance after it."""

    entry: int = Field(description="counts within the account, from 1", examples=[2])
    at: datetime
    kind: str = Field(
        description="`granted`, `debited` or `refunded`",
        examples=["debited"],
        json_schema_extra={"enum": ["granted", "debited", "refunded"]},
    )
    amount: int = Field(description="tokens, never less than 0", examples=[100])
    balance: int = Field(description="tokens after it", examples=[3900])
    message_id: UUID | None = Field(description="the message that was paid for, or refunded")
    reason: str | None = Field(
        description="why tokens were granted, in words; why a message was refunded, as a code",
        examples=["signup"],
    )


class ChangePassword(Body):
    """The password as it is, and as it shall be."""

    current_password: Attempt = Field(examples=["correct horse battery"])
    new_password: NewPassword


Reason = Annotated[
    str,
    Field(
        min_length=1,
        max_length=REASON_CHARACTERS_MAX,
        description="1 to 500 characters",
        examples=["sorry for the outage"],
    ),
]
Granted = Annotated[
    int, Field(ge=1, le=GRANT_TOKENS_MAX, description="tokens of balance", examples=[500])
]


class GrantTokens(Body):
    """Tokens for a user, and why they get them."""

    amount: Granted
    reason: Reason


class Grant(Answer):
    """Tokens that were given."""

    id: UUID
    user_id: UUID
    amount: Granted
    reason: Reason


class Because(Body):
    """Why something is done, if that is to be kept."""

    reason: Reason | None = None


NO_REASON = Because()
