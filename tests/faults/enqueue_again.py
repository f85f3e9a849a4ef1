"""Brings messages to the broker again: `python -m tests.faults.enqueue_again TIMES`.

Reads an id a line, and writes a line when it is ready and after each.
"""

import os
import sys
from uuid import UUID

import django


def main() -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
    django.setup()
    from conversations.replies import enqueue

    times = int(sys.argv[1])
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    for line in sys.stdin:
        brought = [enqueue(UUID(line.strip())) for _ in range(times)]
        sys.stdout.write(f"{sum(brought)}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
