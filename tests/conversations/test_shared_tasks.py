"""Tasks that all requests of a process share: their lines carry the ids of none."""

import asyncio
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import pytest
from structlog.contextvars import bind_contextvars, get_contextvars

from conversations.replies import _Look
from conversations.reply_streams.redis import _Hub
from eventstore import silence


def test_what_the_first_request_starts_for_all_carries_no_ids_of_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bound: dict[str, Any] = {}

    def noting(name: str) -> Any:
        async def task(*_: object) -> bool:
            bound[name] = get_contextvars()
            return True

        return task

    async def first_request() -> None:
        bind_contextvars(request_id="the first")
        loop = asyncio.get_running_loop()
        with _Look(loop).beside(uuid4(), asyncio.Queue()):
            pass
        _Hub("redis://127.0.0.1:1", loop)
        assert await silence.answers()
        while len(bound) < len(tasks):  # noqa: ASYNC110  # three turns of the loop at most
            await asyncio.sleep(0)
        assert get_contextvars() == {"request_id": "the first"}

    tasks = {"look": (_Look, "_run"), "hub": (_Hub, "_listen"), "asking": (silence, "_is_greeted")}
    for name, (owner, attribute) in tasks.items():
        monkeypatch.setattr(owner, attribute, noting(name))
    monkeypatch.setattr(silence, "connection", SimpleNamespace(vendor="postgresql"))
    monkeypatch.setattr(silence, "_asking", [])
    asyncio.run(asyncio.wait_for(first_request(), 10))

    assert bound == {name: {} for name in tasks}
