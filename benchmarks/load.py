"""The load: many clients that keep their connections, each sending its next request at once.

    Load("POST", "/send/", '{"message": "hello"}', jwts).run(url, clients=16, seconds=5)

The clients are one `wrk` (compiled; its package is called so too) with the script `load.lua`.
"""

import json
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

SCRIPT = Path(__file__).with_name("load.lua")
#: An answer that takes longer is a failure. Below what Chatledger waits for a response, so that a
#: send that was answered without one cannot pass for a fast one.
ANSWER_SECONDS_MAX = 20
#: What wrk may take beside the seconds of its load.
MORE_SECONDS_MAX = 30.0
FAILURES = ("not_2xx", "connect", "read", "write", "timeout")


class LoadError(Exception):
    """Why there is no load, in one line for the person who started it."""


@dataclass(frozen=True)
class Measured:
    """What the clients of one run saw; failures by kind, those that did not happen left out."""

    rate: float
    p50_ms: float
    p95_ms: float
    p99_ms: float
    max_ms: float
    requests: int
    failures: dict[str, int]


@dataclass(frozen=True)
class Load:
    """One request, sent in turn by the users of these JWTs."""

    method: str
    path: str
    body: str
    jwts: Sequence[str]

    def run(self, url: str, clients: int, seconds: float) -> Measured:
        """Let so many clients send for so long; a single one's times are exact (see `load.lua`)."""
        wrk = find_wrk()
        with tempfile.NamedTemporaryFile("w", prefix="load-", suffix=".txt") as file:
            file.write("\n".join([self.method, self.path, self.body, *self.jwts, ""]))
            file.flush()
            command = [wrk, "--threads", "1", "--connections", str(clients)]
            command += ["--duration", f"{seconds:.0f}s", "--timeout", f"{ANSWER_SECONDS_MAX}s"]
            command += ["--latency", "--script", str(SCRIPT), url, "--", file.name]
            command += ["exact"] if clients == 1 else []
            done = subprocess.run(
                command,
                check=False,
                capture_output=True,
                text=True,
                timeout=seconds + MORE_SECONDS_MAX,
            )
        return read_summary(done.stdout, done.stderr)


def find_wrk() -> str:
    """Where wrk is."""
    wrk = shutil.which("wrk")
    if wrk is None:
        raise LoadError("the load comes from wrk, which is not there; on Debian: apt install wrk")
    return wrk


def read_summary(output: str, complaints: str = "") -> Measured:
    """Read what `load.lua` says in its last line."""
    last = (output.strip().splitlines() or [""])[-1]
    if not last.startswith("{"):
        raise LoadError(f"wrk tells no figures: {(complaints or output).strip()[-500:]}")
    told = json.loads(last)
    return Measured(
        rate=(told["requests"] - told["not_2xx"]) / told["seconds"],
        p50_ms=told["p50_ms"],
        p95_ms=told["p95_ms"],
        p99_ms=told["p99_ms"],
        max_ms=told["max_ms"],
        requests=told["requests"],
        failures={kind: told[kind] for kind in FAILURES if told[kind]},
    )
