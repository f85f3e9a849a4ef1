"""A process that runs rounds of the simulation, one after the other."""

import os
import traceback
from typing import Any


def work(seed: int, step: int, worlds: int, stop: Any, said: Any) -> None:
    prepare()
    from tests.simulation import rounds

    with rounds.simulated():
        while not stop.is_set():
            try:
                found = rounds.run(seed, worlds=worlds)
            except BaseException as error:  # noqa: BLE001 (whatever it is, it is what was found)
                lines = traceback.format_exception(error, limit=-4)
                said.put((seed, {}, "".join(lines)))
                return
            said.put((seed, found.done, ""))
            seed += step


def prepare() -> None:
    """Django, with keys and a folder of its own; nothing of it is used but the settings."""
    from tests import services_plugin

    services_plugin._start("embedded", services=False)
    os.environ["DJANGO_SETTINGS_MODULE"] = "config.settings"
    import django

    django.setup()
