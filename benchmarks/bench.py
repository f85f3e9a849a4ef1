"""All figures beside what was asked of them, in one table.

    python -m benchmarks.bench [--quick] [--only NAME …] [--rounds N] [--seconds N]

Some ten minutes, with `--quick` two. Starts everything that it needs and stops it, prints the rows
of a scenario as soon as they are known, and writes them, with the machine, into
`benchmarks/results/`: `<date>-<commit>.{json,md}` and `latest.{json,md}`. Exit status 1 if a figure
is missed, a request failed or an invariant is violated; 130 after Ctrl-C, with nothing written.

A scenario is a function `(options) -> list[Row]`: one more is a line in `SCENARIOS`. `options` has
`quick`, `rounds` and `seconds` (of one turn).
"""

import argparse
import datetime as dt
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType

from benchmarks import appends, machine, processes, sizes, speed, table
from benchmarks.load import LoadError, find_wrk
from benchmarks.table import Row
from devstack.processes import DevstackError

RESULTS = Path(__file__).with_name("results")
Scenario = Callable[[argparse.Namespace], list[Row]]

SCENARIOS: dict[str, Scenario] = {
    "full": speed.full_against_postgres,
    "embedded": speed.embedded_against_sqlite,
    "conversations": sizes.conversations,
    "log": sizes.log,
    "users": sizes.users,
    "appends": appends.rows,
    "processes": processes.rows,
}
ROUNDS, ROUNDS_QUICK = 5, 1
TURN_SECONDS, TURN_SECONDS_QUICK = 2.0, 1.0


def main() -> int:
    options = parsed()
    signal.signal(signal.SIGTERM, _as_ctrl_c)
    rows: list[Row] = []
    failed: dict[str, str] = {}
    try:
        find_wrk()
        about = machine.about()
        print("; ".join(f"{name} {value}" for name, value in about.items()))
        print(f"{options.rounds} rounds of {options.seconds:g} s for each; median (least..most)\n")
        print(table.head(), flush=True)
        for name in options.only or SCENARIOS:
            measure(name, options, rows, failed)
    except KeyboardInterrupt:
        print("\ninterrupted; nothing is written", file=sys.stderr)
        return 130
    except (DevstackError, LoadError) as error:
        print(error, file=sys.stderr)
        return 1
    report(options, rows, failed, about)
    return 0 if not failed and all(row.held for row in rows) else 1


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bench")
    parser.add_argument("--quick", action="store_true", help="fewer and shorter rounds")
    parser.add_argument("--only", nargs="+", choices=list(SCENARIOS), metavar="NAME")
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--seconds", type=float, help="of one turn of one contender")
    options = parser.parse_args()
    options.rounds = options.rounds or (ROUNDS_QUICK if options.quick else ROUNDS)
    options.seconds = options.seconds or (TURN_SECONDS_QUICK if options.quick else TURN_SECONDS)
    return options


def measure(
    name: str, options: argparse.Namespace, rows: list[Row], failed: dict[str, str]
) -> None:
    """Add the rows of a scenario and print them; or why there are none."""
    began = time.monotonic()
    try:
        found = SCENARIOS[name](options)
    except speed.Failed as error:
        failed[name] = str(error)
        print(f"{name} FAILED: {error}", flush=True)
        return
    rows += found
    for row in found:
        print(table.line(row))
    print(f"({name}: {time.monotonic() - began:.0f} s, invariants hold)\n", flush=True)


def report(
    options: argparse.Namespace, rows: list[Row], failed: dict[str, str], about: dict[str, str]
) -> None:
    """Write what was found, and say where."""
    today = dt.datetime.now(dt.UTC).date().isoformat()
    settings = {
        "date": today,
        "rounds": options.rounds,
        "seconds of a turn": options.seconds,
        "scenarios": ", ".join(options.only or SCENARIOS),
        "failed": failed or "none",
    }
    files = table.write(RESULTS, f"{today}-{about['commit']}", rows, settings | about)
    missed = [row.name for row in rows if not row.held]
    print(f"missed: {', '.join(missed) or 'none'}; failed: {', '.join(failed) or 'none'}")
    print("\n".join(str(file) for file in files))


def _as_ctrl_c(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
