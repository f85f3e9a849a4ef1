"""Compare every read model with a fresh replay; print each difference. Exit status 1 on any."""

import os
import sys

import django


def main() -> int:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
    django.setup()
    from projections.comparison import compare_with_fresh_replay

    differences = compare_with_fresh_replay()
    for difference in differences:
        sys.stdout.write(f"{difference}\n")
    return 1 if differences else 0


if __name__ == "__main__":
    sys.exit(main())
