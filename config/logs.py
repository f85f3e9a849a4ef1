"""How a log line looks: one event, one line, whatever a client put into its values."""

import logging
import time

# What a terminal or a log reader may take for the end of a line or for a command.
_CONTROLS = (*range(0x20), *range(0x7F, 0xA0), 0x2028, 0x2029)
_ESCAPES = {code: repr(chr(code))[1:-1] for code in _CONTROLS}


class AnsweredOnPurpose(logging.Filter):
    """Leaves out Django's line on a 502 or 503: what led to it has a line of its own."""

    def filter(self, record: logging.LogRecord) -> bool:
        return getattr(record, "status_code", None) not in (502, 503)


class OneLineFormatter(logging.Formatter):
    """Write an event, its traceback included, as one line with its control characters escaped."""

    converter = staticmethod(time.gmtime)
    default_time_format = "%Y-%m-%dT%H:%M:%S"
    default_msec_format = "%s.%03dZ"

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        return super().format(record).translate(_ESCAPES)
