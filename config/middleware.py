"""What every answer has in common: its request id, its headers, and no bare errors."""

import functools
import re
from collections.abc import Awaitable, Callable
from secrets import token_hex

from asgiref.sync import markcoroutinefunction
from django.conf import settings
from django.http import HttpRequest
from django.http.request import split_domain_port, validate_host
from django.http.response import HttpResponse, HttpResponseBase

from config import problems
from config.logs import bind_request
from config.problems import problem_response

#: What the pages of this service may load: its own files, and styles that Swagger writes inline.
HTML_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)
#: What is no page loads nothing and stands in no frame, whatever a browser makes of it.
DATA_POLICY = "default-src 'none'; frame-ancestors 'none'"
#: How long a browser that came by TLS shall come no other way.
HTTPS_ONLY_SECONDS = 365 * 86_400
#: Host headers whose check is remembered.
HOSTS_MAX = 1024


class RequestIdMiddleware:
    """Give each request its ids and each answer its common headers.

    `request.request_id` is made here and stands in the log; `request.shown_request_id` is the one
    the client sees: its own `X-Request-ID` when that is well-formed, else the one made here.
    """

    async_capable = True
    sync_capable = False

    def __init__(self, get_response: Callable[[HttpRequest], Awaitable[HttpResponseBase]]) -> None:
        self.get_response = get_response
        markcoroutinefunction(self)

    async def __call__(self, request: HttpRequest) -> HttpResponseBase:
        made = token_hex(16)
        sent = request.META.get("HTTP_X_REQUEST_ID")
        shown = sent if sent and _REQUEST_ID.fullmatch(sent) else made
        request.request_id = made  # type: ignore[attr-defined]  # accounts.jwt_auth.ApiRequest
        request.shown_request_id = shown  # type: ignore[attr-defined]  # the same
        bind_request(made, shown, request.META.get("HTTP_TRACEPARENT"))
        response = await self.get_response(request)
        complete(response, shown)
        if request.is_secure():
            response.headers["Strict-Transport-Security"] = f"max-age={HTTPS_ONLY_SECONDS}"
        if standing := getattr(request, "rate_limit", None):
            for name, value in standing.headers().items():
                response.headers[name] = value
        return response


class RefusingMiddleware:
    """Refuse what no view should see, and answer 405 as a problem.

    Inside of what adds headers to every answer, so that refusals have them too.
    """

    async_capable = True
    sync_capable = False

    def __init__(self, get_response: Callable[[HttpRequest], Awaitable[HttpResponseBase]]) -> None:
        self.get_response = get_response
        markcoroutinefunction(self)

    async def __call__(self, request: HttpRequest) -> HttpResponseBase:
        request.headers_only = request.method == "HEAD"  # type: ignore[attr-defined]  # accounts.jwt_auth.ApiRequest
        if request.method == "HEAD":
            # The server leaves the body out; everything else is as for GET (RFC 9110 §9.3.2).
            request.method = "GET"
        response = _refusal(request) or await self.get_response(request)
        if response.status_code == 405:
            response = _method_not_allowed(request, response)
        return response


def _refusal(request: HttpRequest) -> HttpResponse | None:
    """Refuse what no view should see: a foreign host, a body that says it is too large."""
    host = request.META.get("HTTP_HOST") or request.META["SERVER_NAME"]
    if not _is_ours(host, tuple(settings.ALLOWED_HOSTS)):
        return problem_response(
            request, problems.BAD_REQUEST, "The Host header is not served here."
        )
    length = request.META.get("CONTENT_LENGTH")
    if length:
        if not _DIGITS.fullmatch(length):
            return problem_response(
                request, problems.BAD_REQUEST, "The Content-Length header is not a number."
            )
        if int(length[:20]) > settings.DATA_UPLOAD_MAX_MEMORY_SIZE:
            return problem_response(request, problems.BODY_TOO_LARGE)
    return None


@functools.lru_cache(HOSTS_MAX)
def _is_ours(host: str, allowed: tuple[str, ...]) -> bool:
    domain, _ = split_domain_port(host)
    return bool(domain) and validate_host(domain, allowed)


def _method_not_allowed(request: HttpRequest, response: HttpResponseBase) -> HttpResponse:
    allowed = {method.strip() for method in response.headers.get("Allow", "").split(",")}
    if "GET" in allowed:
        allowed.add("HEAD")
    allow = ", ".join(sorted(allowed))
    detail = f"This address takes {allow}."
    return problem_response(request, problems.METHOD_NOT_ALLOWED, detail, headers={"Allow": allow})


def complete(response: HttpResponseBase, request_id: str) -> None:
    """Add what every answer has: its id, its length and the common headers."""
    headers = response.headers
    headers["X-Request-ID"] = request_id
    headers["X-Content-Type-Options"] = "nosniff"
    headers["Referrer-Policy"] = "no-referrer"
    if "Cache-Control" not in headers:
        headers["Cache-Control"] = "no-store"
    page = headers.get("Content-Type", "").startswith("text/html")
    headers["Content-Security-Policy"] = HTML_POLICY if page else DATA_POLICY
    if response.status_code == 204:
        headers.pop("Content-Type")
    elif isinstance(response, HttpResponse) and "Content-Length" not in headers:
        headers["Content-Length"] = str(len(response.content))


_REQUEST_ID = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_DIGITS = re.compile(r"[0-9]+")
