"""Requests by route and status, and how long they took."""

import functools
import re
from http import HTTPStatus

from django.http import HttpRequest
from prometheus_client import Counter, Gauge, Histogram

REQUESTS = Counter(
    "chatledger_requests", "Requests that were answered.", ["method", "route", "status"]
)
REQUEST_SECONDS = Histogram(
    "chatledger_request_seconds",
    "From a request's last byte to its answer, or to the start of the stream that answers it.",
    ["method", "route"],
    buckets=(0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120),
)
#: Of its own and without labels, so that it is there before the first one, which is worth an alarm.
ERRORS = Counter("chatledger_errors", "Requests that ended in an error that nobody foresaw: 500.")
STREAMS = Gauge("chatledger_event_streams", "Event streams that are open.")

#: Every method that a route takes; whatever else a client makes up is one of the others.
METHODS = frozenset({"GET", "HEAD", "POST", "PATCH", "PUT", "DELETE", "OPTIONS"})
#: Routes are as many as the code has; this only bounds the memory of a mistake.
ROUTES_MAX = 1_000


def count_request(request: HttpRequest, method: str, status: int, seconds: float) -> None:
    """Count an answer under its route's template: never under a path, of which there is no end."""
    match = request.resolver_match
    route = _template(match.route) if match is not None and match.route else _UNMATCHED
    if method not in METHODS:
        method = "other"
    _answered(method, route, status).inc()
    _seconds(method, route).observe(seconds)
    if status == HTTPStatus.INTERNAL_SERVER_ERROR:
        ERRORS.inc()


_UNMATCHED = "unmatched"
_PARAMETER = re.compile(r"<(?:\w+:)?(\w+)>")


@functools.lru_cache(ROUTES_MAX)
def _template(route: str) -> str:
    """The route as the OpenAPI document has it: `/messages/{message_id}/`."""
    return "/" + _PARAMETER.sub(r"{\1}", route)


# Looking a child up by its labels costs more than counting on it.
@functools.lru_cache(ROUTES_MAX * 10)
def _answered(method: str, route: str, status: int) -> Counter:
    return REQUESTS.labels(method, route, status)


@functools.lru_cache(ROUTES_MAX)
def _seconds(method: str, route: str) -> Histogram:
    return REQUEST_SECONDS.labels(method, route)
