"""How a log line looks: one event, one line, whatever a client put into its values.

Each line carries the ids that are bound to what the process is doing: `request_id`, which stands in
the events too, `message_id`, `user_id`.
"""

import logging
import re
import time
from typing import Any

from structlog.contextvars import (
    bind_contextvars,
    clear_contextvars,
    get_contextvars,
    merge_contextvars,
)
from structlog.processors import JSONRenderer, format_exc_info
from structlog.stdlib import ProcessorFormatter
from structlog.typing import EventDict

# What a terminal or a log reader may take for the end of a line or for a command.
_CONTROLS = (*range(0x20), *range(0x7F, 0xA0), 0x2028, 0x2029)
_ESCAPES = {code: repr(chr(code))[1:-1] for code in _CONTROLS}


class AnsweredOnPurpose(logging.Filter):
    """Leaves out Django's line on a 502 or 503: what led to it has a line of its own."""

    def filter(self, record: logging.LogRecord) -> bool:
        return getattr(record, "status_code", None) not in (502, 503)


def bind_request(request_id: str, shown_id: str, traceparent: str | None) -> None:
    """Let the lines of what is done from here on carry the ids of a request.

    Of a `traceparent` (W3C Trace Context, section 3.2) they carry the id of the trace.
    """
    # A client that sends its requests without waiting has the next one served where the last was.
    clear_contextvars()
    bind_contextvars(request_id=request_id)
    if shown_id != request_id:
        bind_contextvars(client_request_id=shown_id)
    if traceparent and (traced := _TRACEPARENT.fullmatch(traceparent)):
        bind_contextvars(trace_id=traced["trace"])


class OneLineFormatter(logging.Formatter):
    """Write an event, its traceback included, as one line with its control characters escaped."""

    converter = staticmethod(time.gmtime)
    default_time_format = "%Y-%m-%dT%H:%M:%S"
    default_msec_format = "%s.%03dZ"

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        return super().format(record).translate(_ESCAPES)

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 (logging's name)
        """The event and the ids bound to it; a traceback comes behind them."""
        bound = "".join(f" {name}={value}" for name, value in sorted(get_contextvars().items()))
        return super().formatMessage(record) + bound


class JsonFormatter(ProcessorFormatter):
    """Write an event, its traceback included, as one JSON object on one line."""

    converter = staticmethod(time.gmtime)
    default_time_format = OneLineFormatter.default_time_format
    default_msec_format = OneLineFormatter.default_msec_format

    def __init__(self) -> None:
        super().__init__(
            foreign_pre_chain=[merge_contextvars, self._described, format_exc_info],
            processors=[self.remove_processors_meta, JSONRenderer()],
        )

    def format(self, record: logging.LogRecord) -> str:
        return super().format(record).translate(_DELETE)

    def _described(self, logger: Any, name: str, event: EventDict) -> EventDict:
        record: logging.LogRecord = event["_record"]
        own = ("_record", "_from_structlog", "exc_info", "stack_info")
        return {
            "at": self.formatTime(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": event.pop("event"),
            **{key: value if key in own else str(value) for key, value in event.items()},
        }


# JSON leaves it as it is, all else beyond printable ASCII is escaped.
_DELETE = {0x7F: "\\u007f"}
_TRACEPARENT = re.compile(
    r"(?!ff)[0-9a-f]{2}-(?!0{32})(?P<trace>[0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(-.*)?"
)
