"""Whether the database answers at all: what is merely slow does, what is frozen does not."""

import asyncio
from contextvars import Context

import psycopg
from django.db import connection

#: A server that has not greeted a new client by then greets nobody.
GREETING_SECONDS = 1.5

_asking: list[asyncio.Task[bool]] = []


async def answers() -> bool:
    """Whether a new connection is greeted in time; all who ask at one time share the question."""
    if connection.vendor != "postgresql":
        return True
    loop = asyncio.get_running_loop()
    if not _asking or _asking[0].done() or _asking[0].get_loop() is not loop:
        # What all share carries the ids of no request.
        _asking[:] = [loop.create_task(_is_greeted(), context=Context())]
    return await asyncio.shield(_asking[0])


async def _is_greeted() -> bool:
    parameters = connection.get_connection_params()
    # Django's own kind of cursor belongs to connections of threads.
    del parameters["cursor_factory"]
    try:
        async with asyncio.timeout(GREETING_SECONDS):
            greeted = await psycopg.AsyncConnection.connect(**parameters)
    except TimeoutError:
        return False
    except psycopg.OperationalError as error:
        # A refusal of the server's own, for want of room, say, is an answer; its code is not told.
        return "FATAL" in str(error)
    await greeted.close()
    return True
