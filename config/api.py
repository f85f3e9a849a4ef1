"""The HTTP API: its routers, how it reads and writes JSON, which error becomes which problem."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import msgspec
from django.conf import settings
from django.core.exceptions import RequestDataTooBig
from django.http import Http404, HttpRequest, HttpResponse
from django.utils.datastructures import MultiValueDict
from ninja import NinjaAPI
from ninja.errors import HttpError, ValidationError
from ninja.parser import Parser
from ninja.renderers import BaseRenderer

import accounts.api
import accounts.staff_api
import audit.api
import conversations.api
import conversations.conversations_api
import conversations.event_stream
import privacy.api
from accounts import callers, staff_commands
from accounts import commands as account_commands
from accounts import domain as account_domain
from accounts.at_once import RETRY_AFTER_SECONDS, TooManyAtOnce
from accounts.idempotency import InvalidIdempotencyKey
from accounts.rate_limits import RateLimited
from audit import proofs
from config import health, problems
from config.problems import FieldError, Problem, problem_response
from config.strict_json import ForbiddenText, MalformedJson, parse_strict
from conversations import commands as message_commands
from eventstore.database import StoreUnavailable
from eventstore.instants import InTheFuture, MalformedInstant
from eventstore.keys import WrongDataKey
from privacy.erasure import OwnAccount
from projections.queries import ReadModelParked, UnknownCursor

logger = logging.getLogger(__name__)


class BodyTooLarge(Exception):
    """The body is larger than any body here may be."""


class RepeatedParameter(Exception):
    """A parameter of the query, `name`, is given twice: one of its values would be ignored."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name


class NotJson(Exception):
    """The body is declared as something else than JSON, or as nothing."""


@dataclass(frozen=True)
class Answer:
    """How an error is answered: its problem, and what of the error itself is told."""

    problem: Problem
    detail: Callable[[Any], str | None] = lambda error: None
    errors: Callable[[HttpRequest, Any], Sequence[FieldError]] = lambda request, error: ()
    headers: Callable[[Any], Mapping[str, str]] = lambda error: {}


def _password_errors(
    request: HttpRequest, error: account_commands.WeakPassword
) -> list[FieldError]:
    changing = request.path.endswith("/password/")
    name = "new_password" if changing else "password"
    return [(("body", name), message) for message in error.messages]


def _password_name(request: HttpRequest) -> str:
    return "password" if request.method == "DELETE" else "current_password"


def _cursor_name(request: HttpRequest) -> str:
    # A page that begins at two places is refused before it is looked for.
    return "before" if "before" in request.GET else "after"


def _sentence(error: Exception) -> str:
    text = str(error)
    return text[0].upper() + text[1:]


def _costs() -> str:
    return "may cost up to" if settings.PRICING == "usage" else "costs"


_INVALID_TOKEN = {"WWW-Authenticate": 'Bearer error="invalid_token"'}

#: The one place where errors become status codes.
ANSWERS: Mapping[type[Exception], Answer] = {
    MalformedJson: Answer(problems.MALFORMED_JSON, detail=str),
    BodyTooLarge: Answer(problems.BODY_TOO_LARGE),
    RequestDataTooBig: Answer(problems.BODY_TOO_LARGE),
    NotJson: Answer(problems.NOT_JSON),
    ForbiddenText: Answer(
        problems.INVALID_INPUT,
        errors=lambda request, error: [(("body", *error.place), error.what)],
    ),
    RepeatedParameter: Answer(
        problems.INVALID_INPUT,
        errors=lambda request, error: [(("query", error.name), "This is given more than once.")],
    ),
    ValidationError: Answer(
        problems.INVALID_INPUT, errors=lambda request, error: _field_errors(error.errors)
    ),
    callers.NotAuthenticated: Answer(problems.NOT_AUTHENTICATED),
    callers.InvalidJwt: Answer(problems.NOT_AUTHENTICATED, headers=lambda error: _INVALID_TOKEN),
    callers.NotStaff: Answer(problems.STAFF_ONLY),
    RateLimited: Answer(
        problems.TOO_OFTEN,
        detail=lambda error: (
            f'The limit "{error.standing.limit}" allows {error.standing.rate.times} in '
            f"{error.standing.rate.seconds} seconds. Try again in {error.seconds} seconds."
        ),
        headers=lambda error: {"Retry-After": str(error.seconds)},
    ),
    TooManyAtOnce: Answer(
        problems.TOO_MANY_AT_ONCE,
        detail=lambda error: f"You may have {error.most} {error.name} going on at a time.",
        headers=lambda error: {"Retry-After": str(RETRY_AFTER_SECONDS)},
    ),
    accounts.api.PasswordsBusy: Answer(problems.PASSWORDS_BUSY),
    accounts.api.NotShownYet: Answer(problems.READ_MODEL_BEHIND),
    MalformedInstant: Answer(
        problems.INVALID_INPUT,
        errors=lambda request, error: [(("query", "at"), f"{_sentence(error)}.")],
    ),
    InTheFuture: Answer(
        problems.INVALID_INPUT,
        errors=lambda request, error: [(("query", "at"), f"{_sentence(error)}.")],
    ),
    accounts.api.BeforeRegistration: Answer(
        problems.NOT_FOUND,
        detail=lambda error: f"There was no balance yet: {error}.",
    ),
    account_domain.AccountDeactivated: Answer(
        problems.NOT_AUTHENTICATED, headers=lambda error: _INVALID_TOKEN
    ),
    account_domain.InsufficientTokens: Answer(
        problems.INSUFFICIENT_TOKENS,
        detail=lambda error: (
            f"A message {_costs()} {error.price} tokens, the balance is {error.balance}."
        ),
    ),
    account_commands.WrongCredentials: Answer(problems.WRONG_CREDENTIALS),
    account_commands.UsernameTaken: Answer(problems.USERNAME_TAKEN),
    account_commands.UserNotFound: Answer(problems.NOT_FOUND),
    OwnAccount: Answer(problems.OWN_ACCOUNT),
    account_commands.WeakPassword: Answer(problems.INVALID_INPUT, errors=_password_errors),
    account_commands.WrongPassword: Answer(
        problems.WRONG_PASSWORD,
        errors=lambda request, error: [
            (("body", _password_name(request)), "This is not the current password.")
        ],
    ),
    InvalidIdempotencyKey: Answer(
        problems.INVALID_INPUT,
        errors=lambda request, error: [
            (
                ("header", "Idempotency-Key"),
                "There is one Idempotency-Key, of 1 to 255 visible ASCII characters.",
            )
        ],
    ),
    message_commands.IdempotencyKeyReused: Answer(
        problems.IDEMPOTENCY_KEY_REUSED,
        errors=lambda request, error: [
            (("header", "Idempotency-Key"), "This key was used for another message.")
        ],
    ),
    staff_commands.GrantKeyReused: Answer(
        problems.IDEMPOTENCY_KEY_REUSED,
        errors=lambda request, error: [
            (("header", "Idempotency-Key"), "This key was used for another grant.")
        ],
    ),
    conversations.event_stream.MalformedEventId: Answer(
        problems.INVALID_INPUT,
        errors=lambda request, error: [
            (("header", "Last-Event-ID"), "This is no id of an event of this service.")
        ],
    ),
    conversations.api.MessageNotFound: Answer(problems.NOT_FOUND),
    message_commands.ConversationNotFound: Answer(problems.NOT_FOUND),
    message_commands.MessageDeleted: Answer(
        problems.NOT_FOUND, detail=lambda error: "The message was deleted with its conversation."
    ),
    conversations.conversations_api.ContradictoryPage: Answer(
        problems.INVALID_INPUT,
        errors=lambda request, error: [(("query", error.name), f"{error}.")],
    ),
    UnknownCursor: Answer(
        problems.INVALID_INPUT,
        errors=lambda request, error: [
            (("query", _cursor_name(request)), "Nothing with this id is in the list.")
        ],
    ),
    conversations.api.NoResponse: Answer(
        problems.NO_RESPONSE,
        detail=lambda error: (
            f"No response could be generated for message {error.message_id} ({error.reason})."
            " What was debited has been refunded."
        ),
    ),
    proofs.EventNotFound: Answer(problems.NOT_FOUND, detail=str),
    proofs.NotSealedYet: Answer(
        problems.NOT_SEALED_YET, headers=lambda error: {"Retry-After": "1"}
    ),
    proofs.SealDamaged: Answer(problems.SEAL_DAMAGED, detail=str),
    StoreUnavailable: Answer(problems.STORE_UNAVAILABLE),
    # Not every `KeyUnreadable`: one text that its own key does not open is damage, and ours to see.
    WrongDataKey: Answer(problems.KEYS_UNREADABLE),
    ReadModelParked: Answer(
        problems.READ_MODEL_PARKED,
        detail=lambda error: (
            f"The read model {error.projection} stopped at stream {error.stream_id} ({error.kind})."
        ),
    ),
    Http404: Answer(problems.NOT_FOUND),
}


class StrictParser(Parser):
    """Reads bodies as `parse_strict` does, only those declared as JSON, and each parameter once."""

    def parse_body(self, request: HttpRequest) -> Any:
        if request.content_type != "application/json":
            raise NotJson
        body = request.body
        if len(body) > settings.DATA_UPLOAD_MAX_MEMORY_SIZE:
            # One that comes in chunks does not say its size beforehand.
            raise BodyTooLarge
        return parse_strict(body)

    def parse_querydict(
        self, data: MultiValueDict[str, Any], list_fields: list[str], request: HttpRequest
    ) -> dict[str, Any]:
        for name, values in data.lists():
            if len(values) > 1:
                raise RepeatedParameter(name)
        return super().parse_querydict(data, list_fields, request)


class FastRenderer(BaseRenderer):
    """Writes JSON with msgspec; times end in Z."""

    media_type = "application/json"

    def render(self, request: HttpRequest, data: Any, *, response_status: int) -> bytes:
        return msgspec.json.encode(data)


def answer_error(request: HttpRequest, error: Any) -> HttpResponse:
    """Turn an error that the table knows into its problem."""
    answer = next(ANSWERS[kind] for kind in type(error).__mro__ if kind in ANSWERS)
    if answer.problem.status == HTTPStatus.SERVICE_UNAVAILABLE:
        logger.warning("request %s: %s: %s", _ids(request), answer.problem.title, error)
    return problem_response(
        request,
        answer.problem,
        answer.detail(error),
        errors=answer.errors(request, error),
        headers=answer.headers(error),
    )


def answer_http_error(request: HttpRequest, error: Any) -> HttpResponse:
    """Answer the error inside: Ninja wraps whatever reading a body raises."""
    if type(error.__cause__) in ANSWERS:
        return answer_error(request, error.__cause__)
    return answer_unexpected(request, error)


def answer_unexpected(request: HttpRequest, error: Any) -> HttpResponse:
    """Log what nobody foresaw under both of the request's ids, and tell the client none of it."""
    logger.error(
        "request %s failed: %s %s",
        _ids(request),
        request.method,
        request.path,
        exc_info=error,
    )
    return problem_response(request, problems.INTERNAL_ERROR)


def _ids(request: HttpRequest) -> str:
    """The server's id of a request, and the client's own where it gave one."""
    ids = (getattr(request, "request_id", ""), getattr(request, "shown_request_id", ""))
    return " ".join(dict.fromkeys(ids))


def _field_errors(errors: Sequence[Mapping[str, Any]]) -> list[FieldError]:
    return [(_location(error["loc"]), _message(error)) for error in errors]


def _location(loc: tuple[str | int, ...]) -> tuple[str | int, ...]:
    # Behind "body" Ninja puts the name of the function's parameter, which no client knows.
    return ("body", *loc[2:]) if loc[0] == "body" else loc


def _message(error: Mapping[str, Any]) -> str:
    if error["type"] in ("model_type", "model_attributes_type"):
        return "Input should be a JSON object"
    return str(error["msg"])


api = NinjaAPI(
    title="Chatledger",
    version="1",
    description="A chatbot API in which every message and every token is an event in one log.",
    auth=callers.BearerJwt(),
    parser=StrictParser(),
    renderer=FastRenderer(),
    openapi_url=None,
)
api.add_router("", accounts.api.router)
api.add_router("", conversations.api.router)
api.add_router("", conversations.conversations_api.router)
api.add_router("", privacy.api.router)
api.add_router("", health.router, auth=None)
api.add_router("", accounts.staff_api.router)
api.add_router("", audit.api.router)
for _kind in ANSWERS:
    api.add_exception_handler(_kind, answer_error)
api.add_exception_handler(HttpError, answer_http_error)
api.add_exception_handler(Exception, answer_unexpected)
