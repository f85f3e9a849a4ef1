"""A full stack in which every process reaches PostgreSQL and Redis by way of proxies of its own."""

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from devstack.stack import Stack
from tests.faults.protocols import Postgres, Redis
from tests.faults.proxy import Proxy
from tests.stack.services import FullService

KINDS = ("web", "worker", "followers")


class ProxiedStack(Stack):
    """`postgres_proxies` and `redis_proxies` by the kind of process: web, worker, followers."""

    def __init__(self, folder: Path, **options: Any) -> None:
        super().__init__(folder, **options)
        self.postgres_proxies: dict[str, Proxy] = {}
        self.redis_proxies: dict[str, Proxy] = {}
        self._proxies = ExitStack()

    def close(self) -> None:
        super().close()
        self._proxies.close()

    def _start_services(self) -> None:
        super()._start_services()
        for kind in KINDS:
            postgres = Proxy(self.postgres.port, Postgres)
            redis = Proxy(self.redis.port, Redis)
            self.postgres_proxies[kind] = self._proxies.enter_context(postgres)
            self.redis_proxies[kind] = self._proxies.enter_context(redis)

    def _env(self, kind: str, keys: Mapping[str, str]) -> dict[str, str]:
        env = super()._env(kind, keys)
        if kind in KINDS:
            env["DATABASE_URL"] = self.postgres_proxies[kind].url(self.postgres.url)
            env["REDIS_URL"] = self.redis_proxies[kind].url(self.redis.url)
        return env


class ProxiedService(FullService):
    """A full stack behind proxies; the checker and commands reach the services directly."""

    stack: ProxiedStack

    def __init__(self, folder: Path, **options: Any) -> None:
        super().__init__(folder, stack=ProxiedStack, **options)

    def postgres(self, kind: str = "web") -> Proxy:
        """What processes of this kind reach PostgreSQL through."""
        return self.stack.postgres_proxies[kind]

    def redis(self, kind: str = "web") -> Proxy:
        """What processes of this kind reach Redis through."""
        return self.stack.redis_proxies[kind]

    def environment(self) -> dict[str, str]:
        direct = {"DATABASE_URL": self.stack.postgres.url, "REDIS_URL": self.stack.redis.url}
        return super().environment() | direct
