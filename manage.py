#!/usr/bin/env python
"""Chatledger's command line: `python manage.py help` lists what it can do."""

import os
import sys

PYTHON_MIN = (3, 11)


def main() -> None:
    """Run one command, or say in one line why this Python cannot."""
    if sys.version_info < PYTHON_MIN:
        sys.stderr.write(
            "Chatledger needs Python {}.{} or newer; this is Python {}.{} ({}).\n".format(
                *PYTHON_MIN, *sys.version_info[:2], sys.executable
            )
        )
        sys.exit(2)
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
    from django.core.management import execute_from_command_line

    execute_from_command_line(sys.argv)


if __name__ == "__main__":
    main()
