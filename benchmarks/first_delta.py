"""What Chatledger adds to the time until a response begins, on an idle full stack.

    python -m benchmarks.first_delta [--rounds 200]

In turn, the same client reads one stream through Chatledger and one straight from the model server:
from the stamp in the model's first delta, which it sends with its first byte, to its arrival. The
model thinks for a while first, so that neither path has anything else to do by then.
"""

import argparse
import asyncio
import os
import re
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import uvloop

from benchmarks.caller import Caller, milliseconds
from benchmarks.stream_client import Reading, post, read, send
from benchmarks.streaming_stack import streaming_stack
from devstack.model_scripts import MODEL

ASKED_ADDED_SECONDS = 0.005
THINKING_SECONDS = 0.05
#: Silence after each stream, for what is done behind its end.
PAUSE_SECONDS = 0.05
STREAM_SECONDS_MAX = 20.0
WARM_UP_ROUNDS = 10
MESSAGE = f'{{"deltas": 1, "first": {THINKING_SECONDS}, "stamped": true}}'

_STAMP = re.compile(rb"00000:([0-9]+) ")


def main(rounds: int = 200) -> int:
    with (
        tempfile.TemporaryDirectory(prefix="chatledger-") as folder,
        streaming_stack(Path(folder), streams=8) as (stack, model_port),
    ):
        caller = Caller(stack.url, "first-delta")
        caller.register()
        asked = {"model": MODEL, "stream": True, "messages": [{"role": "user", "content": MESSAGE}]}
        paths = [
            (stack.web_ports[0], send(MESSAGE, caller.jwt)),
            (model_port, post("/v1/chat/completions", asked)),
        ]
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(in_turn(paths, WARM_UP_ROUNDS))
            through, direct = runner.run(in_turn(paths, rounds))
    added = statistics.median(through) - statistics.median(direct)
    print(f"idle full stack, {rounds} rounds, {os.cpu_count()} cores, first delta:")
    print(f"  through Chatledger: {milliseconds(through)}")
    print(f"  from the model:     {milliseconds(direct)}")
    print(f"  difference of the medians: {added * 1000:.2f} ms")
    return 0 if added <= ASKED_ADDED_SECONDS else 1


async def in_turn(paths: Sequence[tuple[int, bytes]], rounds: int) -> list[list[float]]:
    """Read one stream on each path in turn; for each path, the seconds of every round."""
    seconds: list[list[float]] = [[] for _ in paths]
    for _ in range(rounds):
        for (port, request), of_path in zip(paths, seconds, strict=True):
            reading = await read(port, request, STREAM_SECONDS_MAX)
            of_path.append(first_delta_seconds(reading))
            await asyncio.sleep(PAUSE_SECONDS)
    return seconds


def first_delta_seconds(reading: Reading) -> float:
    """From the stamp of the first delta to its arrival."""
    arrived = b""
    for at, data in reading.reads:
        arrived += data
        if stamp := _STAMP.search(arrived):
            return (at - int(stamp[1])) / 1e9
    raise AssertionError(f"no delta came: {reading.gave_up} {arrived[:500]!r}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks.first_delta")
    parser.add_argument("--rounds", type=int, default=200)
    sys.exit(main(**vars(parser.parse_args())))
