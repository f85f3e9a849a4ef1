"""A worker whose responder is slow: `python -m tests.stack.slow_worker SECONDS [CALLS_FILE]`.

Everything but the responder is the real thing. Each call of the responder adds a line to the file.
With CHATLEDGER_TESTS_HASTE=N the times after which a worker counts as dead are N times shorter.
"""

import os
import sys
import time
from pathlib import Path
from typing import Any

import django


def main() -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
    django.setup()
    from django.conf import settings
    from django.core.management import call_command

    from conversations import responders
    from conversations.broker import broker
    from eventstore import leases

    haste = float(os.environ.get("CHATLEDGER_TESTS_HASTE", "1"))
    redis_broker: Any = broker
    redis_broker.heartbeat_timeout = int(redis_broker.heartbeat_timeout / haste)
    leases.LEASE_SECONDS /= haste
    leases.RENEW_SECONDS /= haste
    seconds = float(sys.argv[1])
    calls = Path(sys.argv[2]) if len(sys.argv) > 2 else None

    class SlowResponder:
        model = "slow"
        waits = False

        def respond(self, prompt: responders.Prompt, reply: responders.Reply) -> None:
            if calls:
                with calls.open("a") as file:
                    file.write(f"{prompt.message_id}\n")
            time.sleep(seconds)
            reply.say(f"slow: {prompt.message}")

    responders.registered["slow"] = SlowResponder
    settings.RESPONDER = "slow"
    call_command("run_worker")


if __name__ == "__main__":
    main()
