"""Problem documents (RFC 9457): what can go wrong, said to programs and, on a page, to people."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import msgspec
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils.encoding import escape_uri_path
from django.views.decorators.http import require_safe

from config.strict_json import SHOWN_CHARACTERS_MAX, Location, shown

CONTENT_TYPE = "application/problem+json"
#: How many mistakes of one request are named.
ERRORS_MAX = 20
#: When a client may come back after a 503.
RETRY_AFTER_SECONDS = 2

FieldError = tuple[Location, str]


@dataclass(frozen=True, slots=True)
class Problem:
    """One kind of failure: the address of its page, its status, what it means and what to do."""

    slug: str
    status: int
    title: str
    meaning: str
    remedy: str

    @property
    def type(self) -> str:
        """The path of the public page about this kind."""
        return f"/problems/{self.slug}/"

    @property
    def reason(self) -> str:
        """What HTTP calls the status."""
        return HTTPStatus(self.status).phrase


MALFORMED_JSON = Problem(
    "malformed-json",
    400,
    "The body is not valid JSON",
    "The body cannot be read as JSON, or could be read in two ways: it is cut off, is not UTF-8, "
    "has a key twice, holds NaN or an infinity, a number without end or too deep a nesting.",
    "Encode the body with a JSON library, as UTF-8, and give each key once.",
)
BAD_REQUEST = Problem(
    "bad-request",
    400,
    "The request cannot be understood",
    "The request breaks the rules of HTTP, or names a host that this service does not answer for.",
    "See the detail. An operator adds host names to ALLOWED_HOSTS.",
)
NOT_AUTHENTICATED = Problem(
    "not-authenticated",
    401,
    "A valid JWT is needed",
    "The request carries no JWT, or one that is not valid (any more): it has expired, was not "
    "issued here, or the account has since logged out, got a new password, been deactivated or "
    "erased.",
    "Get a JWT from POST /users/login/ and send it as: Authorization: Bearer <JWT>.",
)
WRONG_CREDENTIALS = Problem(
    "wrong-credentials",
    401,
    "The login failed",
    "No active account has this name and this password. Which of them is wrong is not said.",
    "Check both. Names may be written in any case, passwords may not.",
)
INSUFFICIENT_TOKENS = Problem(
    "insufficient-tokens",
    402,
    "The balance is too small",
    "A message costs more tokens than the account has. Nothing was debited, nothing was sent.",
    "GET /token/ shows the balance; a pending message may give back what it does not use. Whoever "
    "runs the service can grant more.",
)
FORBIDDEN = Problem(
    "forbidden",
    403,
    "Not allowed",
    "The account may not do this.",
    "Use an account that may, or ask the operator.",
)
STAFF_ONLY = Problem(
    "staff-only",
    403,
    "Only staff may do this",
    "The JWT is valid, but its account is no member of staff. Nothing was done.",
    "Use an account of staff. An operator makes one with: manage.py set_role USER staff.",
)
OWN_ACCOUNT = Problem(
    "own-account",
    403,
    "Not for one's own account",
    "Staff erase others here, without a password. A JWT alone does not erase its own account. "
    "Nothing was done.",
    "Use DELETE /users/me/, with your password.",
)
NOT_FOUND = Problem(
    "not-found",
    404,
    "Nothing is here",
    "There is nothing at this address, or nothing of yours: what belongs to somebody else answers "
    "exactly as what does not exist.",
    "Check the address. Paths end with a slash; /docs lists them all.",
)
METHOD_NOT_ALLOWED = Problem(
    "method-not-allowed",
    405,
    "This method is not available here",
    "The address exists, but not for this method.",
    "Use one of those that the Allow header lists.",
)
REQUEST_TIMEOUT = Problem(
    "request-timeout",
    408,
    "The request did not come in time",
    "The connection was open, and the rest of the request did not come. Nothing was written.",
    "Send the request again, at once and as a whole.",
)
USERNAME_TAKEN = Problem(
    "username-taken",
    409,
    "The username is taken",
    "Somebody has, or had, this name. Upper and lower case make no difference, and names are "
    "never given out again.",
    "Choose another name.",
)
BODY_TOO_LARGE = Problem(
    "body-too-large",
    413,
    "The body is too large",
    "The body is larger than 128 KiB.",
    "Send less. A message has at most 8,000 characters.",
)
NOT_JSON = Problem(
    "not-json",
    415,
    "The body is not declared as JSON",
    "A body came without Content-Type, or with another one than application/json.",
    "Send the header Content-Type: application/json.",
)
INVALID_INPUT = Problem(
    "invalid-input",
    422,
    "The input breaks a rule",
    "The request is well-formed, but a value in it is missing, unknown or not allowed. `errors` "
    "says where (`loc`) and why (`msg`). Nothing was written.",
    "Correct the values that `errors` names.",
)
WRONG_PASSWORD = Problem(
    "wrong-password",
    422,
    "The current password is wrong",
    "To change something this important the current password has to be given again, and it is not "
    "the one that was sent. Nothing was changed.",
    "Send the current password.",
)
IDEMPOTENCY_KEY_REUSED = Problem(
    "idempotency-key-reused",
    422,
    "The Idempotency-Key stands for something else",
    "This key was used before: for a message with another text or in another conversation, or for "
    "a grant to another user, of another amount or for another reason. Nothing was written.",
    "Make a new key for each new message or grant, and repeat with the old key only what was sent "
    "with it.",
)
HEAD_TOO_LARGE = Problem(
    "head-too-large",
    431,
    "The head of the request is too large",
    "The request line and the headers have more than 16 KiB together. A JWT of this service has "
    "some 400 bytes.",
    "Send fewer and shorter headers.",
)
TOO_OFTEN = Problem(
    "too-often",
    429,
    "Too many requests",
    "This was done too often: logins are limited for each name and address, registrations for each "
    "address, sends for each user. Nothing was done.",
    "Try again after Retry-After. RateLimit-Policy says what is allowed, RateLimit how much of it "
    "is left. A repeat counts too.",
)
TOO_MANY_AT_ONCE = Problem(
    "too-many-at-once",
    429,
    "Too many at the same time",
    "One user may have only so many event streams open at a time, and so many exports, and one "
    "address so many passwords waiting to be checked. Nothing was done, and nothing was debited.",
    "End one of those that are open, or wait for it to end, and try again after Retry-After.",
)
INTERNAL_ERROR = Problem(
    "internal-error",
    500,
    "Something went wrong here",
    "The service made a mistake. What was asked for may or may not have been done.",
    "Try again, a message with its Idempotency-Key. If it stays, tell the operator the request id.",
)
NO_RESPONSE = Problem(
    "no-response",
    502,
    "No response could be generated",
    "The message was accepted, but the responder failed. What was debited has been refunded.",
    "Send the message again, with a new Idempotency-Key if you use one.",
)
STORE_UNAVAILABLE = Problem(
    "store-unavailable",
    503,
    "The database does not answer",
    "The database is away for the moment. What was to be written may or may not have been.",
    "Try again after Retry-After. Repeat a message with its Idempotency-Key: it costs once.",
)
PASSWORDS_BUSY = Problem(
    "passwords-busy",
    503,
    "Too many passwords are being checked",
    "Checking a password is slow on purpose, and more requests wait for it already than can be "
    "served in time. Nothing was checked and nothing was counted.",
    "Try again after Retry-After.",
)
STOPPING = Problem(
    "stopping",
    503,
    "This process stops",
    "It was told to stop before the request was complete. Nothing was written.",
    "Send the request again after Retry-After: to another process, or to the next one here.",
)
KEYS_UNREADABLE = Problem(
    "keys-unreadable",
    503,
    "The service cannot read its keys",
    "The service runs with a key that does not open those of its log, so it can read no text. "
    "Nothing is lost.",
    "Try again after Retry-After. An operator restores DATA_KEY, and DATA_KEY_PREVIOUS while it is "
    "being replaced; the log of this process names a key that does not open.",
)
READ_MODEL_BEHIND = Problem(
    "read-model-behind",
    503,
    "What was asked for cannot be shown yet",
    "The log holds it, but the tables that are made from the log do not show it yet.",
    "Try again after Retry-After.",
)
READ_MODEL_PARKED = Problem(
    "read-model-parked",
    503,
    "What was asked for cannot be shown",
    "An event could not be applied to the tables that are made from the log, so what they would "
    "show of this stream is not trusted. Nothing is lost.",
    "An operator finds the cause in the log and runs: manage.py retry_parked.",
)
NOT_SEALED_YET = Problem(
    "not-sealed-yet",
    503,
    "The event is not sealed yet",
    "The event is in the log, but no checkpoint seals it yet. One is made every second in which "
    "there is something to seal.",
    "Try again after Retry-After. If it stays, the followers are down: see /readyz/.",
)
SEAL_DAMAGED = Problem(
    "seal-damaged",
    503,
    "What is stored cannot be proved",
    "The event or the checkpoint over it is not as this service writes it: somebody or something "
    "changed it in the database.",
    "An operator finds out what was changed with: manage.py verify --seals.",
)

PROBLEMS: Mapping[str, Problem] = {
    value.slug: value for value in list(globals().values()) if isinstance(value, Problem)
}


def problem_response(
    request: HttpRequest,
    problem: Problem,
    detail: str | None = None,
    *,
    errors: Sequence[FieldError] = (),
    headers: Mapping[str, str] | None = None,
) -> HttpResponse:
    """Answer with a problem document; a 401 and a 503 get the header that belongs to them."""
    document: dict[str, Any] = {
        "type": problem.type,
        "title": problem.title,
        "status": problem.status,
        "detail": detail or problem.meaning,
        "instance": escape_uri_path(request.path),
        "request_id": getattr(request, "shown_request_id", ""),
    }
    if errors:
        document["errors"] = [
            {"loc": [_shown(part) for part in loc], "msg": msg} for loc, msg in errors[:ERRORS_MAX]
        ]
    content = msgspec.json.encode(document)
    response = HttpResponse(content, status=problem.status, content_type=CONTENT_TYPE)
    if problem.status == 401:
        response["WWW-Authenticate"] = "Bearer"
    elif problem.status == 503:
        response["Retry-After"] = str(RETRY_AFTER_SECONDS)
    for name, value in (headers or {}).items():
        response[name] = value
    return response


@require_safe
async def problem_page(request: HttpRequest, slug: str) -> HttpResponse:
    """Explain one kind of problem to a person."""
    problem = PROBLEMS.get(slug)
    if problem is None:
        return problem_response(request, NOT_FOUND)
    return render(request, "config/problem.html", {"problem": problem})


@require_safe
async def problem_index(request: HttpRequest) -> HttpResponse:
    """List every kind of problem."""
    return render(request, "config/problems.html", {"problems": PROBLEMS.values()})


def _shown(part: str | int) -> str | int:
    if isinstance(part, int) or (part.isprintable() and len(part) <= SHOWN_CHARACTERS_MAX):
        return part
    return shown(part)
