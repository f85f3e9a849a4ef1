"""What metrics and the ids of the log cost a send, in microseconds of the process that does it.

python -m benchmarks.metrics_cost
"""

import contextvars
import os
import tempfile
import time
import timeit
from collections.abc import Callable
from uuid import uuid4

import django

CALLS = 50_000


def microseconds(call: Callable[[], object]) -> float:
    """The processor's time a call, the best of five runs."""
    return min(timeit.repeat(call, timer=time.thread_time, number=CALLS, repeat=5)) / CALLS * 1e6


def main() -> None:
    os.environ |= {"DJANGO_SETTINGS_MODULE": "config.settings", "VAR_DIR": tempfile.mkdtemp()}
    django.setup()
    from django.http import HttpRequest
    from django.urls import resolve
    from structlog.contextvars import bind_contextvars

    from config.logs import bind_request
    from config.metrics.requests import count_request
    from conversations import metrics
    from eventstore.metrics import COMMIT_FAILURES, COMMIT_JOBS, COMMIT_SECONDS

    request = HttpRequest()
    request.resolver_match = resolve(f"/messages/{uuid4()}/")
    traceparent = f"00-{'a1' * 16}-{'b2' * 8}-01"
    user_id, message_id = uuid4(), uuid4()

    def commit() -> None:
        COMMIT_JOBS.observe(3)
        with COMMIT_FAILURES.count_exceptions(), COMMIT_SECONDS.time():
            pass

    def generate() -> None:
        with metrics.GENERATING.track_inprogress(), metrics.GENERATION_SECONDS.time():
            pass

    def in_context() -> None:
        contextvars.copy_context().run(int)

    web: dict[str, Callable[[], object]] = {
        "count and time a request": lambda: count_request(request, "GET", 200, 0.02),
        "count a send": metrics.ACCEPTED.inc,
        "bind a request's id": lambda: bind_request("made", "made", None),
        "bind it with the client's and a trace": lambda: bind_request("made", "sent", traceparent),
        "bind a user's and a message's": lambda: bind_contextvars(
            user_id=user_id, message_id=message_id
        ),
        "take them along into a thread": in_context,
        "count and time a commit (shared by its appends)": commit,
    }
    worker = {"count and time a generation": generate, "ids of a message": in_context}
    for where, rows in (("web", web), ("worker", worker)):
        for what, call in rows.items():
            print(f"{where:<7} {what:<50} {microseconds(call):6.2f} µs")


if __name__ == "__main__":
    main()
