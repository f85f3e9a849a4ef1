"""`make stack`: the full stack in the foreground, until Ctrl-C or SIGTERM."""

import argparse
import os
import shlex
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from config.environment import KEY_NAMES, Environment
from devstack.processes import DevstackError
from devstack.stack import Stack

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
#: What the stack decides itself: addresses, folders, and the keys that it makes.
OWN = {
    *("DATABASE_URL", "REDIS_URL", "VAR_DIR", "HOST", "PORT", "ALLOWED_HOSTS", "DEBUG"),
    *("METRICS_HOST", "METRICS_PORT"),
    *(*KEY_NAMES, "DATA_KEY_PREVIOUS", "JWT_SIGNING_KEYS_PREVIOUS"),
}
#: Every other setting, so that `MESSAGE_PRICE=50 make stack` works.
PASSED_ON = sorted({name.upper() for name in Environment.model_fields} - OWN)


def main() -> int:
    """Run the stack until it is told to stop; 1 when it cannot run or go on."""
    arguments = parse_arguments()
    stop_at_the_first_signal()
    stack = Stack(
        arguments.folder,
        port=arguments.port,
        webs=arguments.webs,
        workers=arguments.workers,
        followers=arguments.followers,
        extra_env={name: os.environ[name] for name in PASSED_ON if name in os.environ},
        supervise=True,
        report=say,
    )
    try:
        say("Starting PostgreSQL, Redis, web, worker and followers …")
        stack.open()
        print_processes(stack)
        print_command(stack)
        stack.wait_until_ready()
        print_welcome(stack)
        stack.gave_up.wait()
    except KeyboardInterrupt:
        say("Stopping …")
    except DevstackError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    finally:
        ignore_signals()
        stack.close()
    return int(stack.gave_up.is_set())


class OneLineParser(argparse.ArgumentParser):
    """Says what is wrong in one line, as everything else here does."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{message}\n")


def parse_arguments() -> argparse.Namespace:
    parser = OneLineParser(prog="python -m devstack", description=__doc__)
    port = between(1, 65535)
    parser.add_argument("--port", type=port, help="default: $PORT or 8000")
    parser.add_argument("--folder", type=Path, default=Path("var/stack"), help="%(default)s")
    for kind in ("webs", "workers", "followers"):
        parser.add_argument(f"--{kind}", type=between(1, 64), default=1, metavar="N")
    arguments = parser.parse_args()
    if arguments.port is None:
        try:
            arguments.port = port(os.environ.get("PORT") or "8000")
        except argparse.ArgumentTypeError as error:
            parser.error(f"PORT: {error}")
    return arguments


def between(low: int, high: int) -> Callable[[str], int]:
    """A type of argument: a whole number within bounds."""

    def number(text: str) -> int:
        if not text.isdecimal() or not low <= int(text) <= high:
            raise argparse.ArgumentTypeError(f"{text!r} is refused; allowed: {low} to {high}")
        return int(text)

    return number


def stop_at_the_first_signal() -> None:
    """Turn the first signal into `KeyboardInterrupt`; later ones do not disturb the stopping."""

    def stop(*_: object) -> None:
        ignore_signals()
        raise KeyboardInterrupt

    for number in STOP_SIGNALS:
        signal.signal(number, stop)


def ignore_signals() -> None:
    for number in STOP_SIGNALS:
        # Unlike SIG_IGN, a handler is not handed down to children.
        signal.signal(number, lambda *_: None)


def print_processes(stack: Stack) -> None:
    rows = [("NAME", "PID", "ADDRESS", "METRICS", "LOG")]
    rows += [
        (child.name, str(child.pid), child.address, child.metrics, str(shown(child.log_file)))
        for child in stack.processes.values()
    ]
    for name, pid, address, metrics, shown_log in rows:
        say(f"{name:<12} {pid:>8}  {address:<16} {metrics:<16} {shown_log}")


def print_welcome(stack: Stack) -> None:
    url = stack.url.replace("127.0.0.1", "localhost")
    say(f"\nChatledger serves on {url} (docs: {url}/docs). Ctrl-C stops it. Try:\n")
    say(f"  curl -s {url}/users/register/ -H 'Content-Type: application/json' \\")
    say('    -d \'{"username": "alice", "password": "a-long-passphrase"}\'\n')


def print_command(stack: Stack) -> None:
    # In parentheses, so that the terminal is not left with settings of a stack that has stopped.
    file = shlex.quote(str(shown(stack.environment_file)))
    say(f"Commands against it: (set -a; . {file}; .venv/bin/python manage.py verify)")


def shown(file: Path) -> Path:
    """A file's path from here, where it lies below."""
    here = Path.cwd()
    return file.relative_to(here) if file.is_relative_to(here) else file


def say(line: str) -> None:
    """Print at once, also into a pipe."""
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
