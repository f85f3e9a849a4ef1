"""Bring messages to the broker again: `python -m tests.faults.enqueue_again TIMES ID…`."""

import os
import sys
from uuid import UUID

import django


def main() -> int:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
    django.setup()
    from conversations.replies import enqueue

    times, *messages = sys.argv[1:]
    return 0 if all(enqueue(UUID(each)) for each in messages * int(times)) else 1


if __name__ == "__main__":
    sys.exit(main())
