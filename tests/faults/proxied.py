"""A full stack in which every process reaches PostgreSQL and Redis by way of proxies of its own."""

from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from devstack.processes import DevstackError
from devstack.stack import Stack
from tests.faults.protocols import Postgres, Redis
from tests.faults.proxy import Proxy
from tests.stack.services import FullService

#: How often a process that ends at once is started.
STARTS_MAX = 5
#: Kinds of processes that have proxies.
KINDS = ("web", "worker", "followers")


class ProxiedStack(Stack):
    """`postgres_proxies` and `redis_proxies` by the name of the process: `web-1`, `worker-1` …"""

    def __init__(self, folder: Path, **options: Any) -> None:
        super().__init__(folder, **options)
        self.postgres_proxies: dict[str, Proxy] = {}
        self.redis_proxies: dict[str, Proxy] = {}
        self._proxies = ExitStack()

    def close(self) -> None:
        super().close()
        self._proxies.close()

    def _start_process(self, kind: str, number: int, env: dict[str, str]) -> None:
        name = f"{kind}-{number}"
        postgres = self._proxies.enter_context(Proxy(self.postgres.port, Postgres))
        redis = self._proxies.enter_context(Proxy(self.redis.port, Redis))
        self.postgres_proxies[name], self.redis_proxies[name] = postgres, redis
        env["DATABASE_URL"] = postgres.url(self.postgres.url)
        env["REDIS_URL"] = redis.url(self.redis.url)
        super()._start_process(kind, number, env)


class ProxiedService(FullService):
    """A full stack behind proxies; the checker and commands reach the services directly."""

    stack: ProxiedStack

    def __init__(self, folder: Path, **options: Any) -> None:
        super().__init__(folder, stack=ProxiedStack, **options)

    def postgres(self, name: str = "web") -> Proxy:
        """What this process, or the first of its kind, reaches PostgreSQL through."""
        return self.stack.postgres_proxies[name if "-" in name else f"{name}-1"]

    def redis(self, name: str = "web") -> Proxy:
        """What this process, or the first of its kind, reaches Redis through."""
        return self.stack.redis_proxies[name if "-" in name else f"{name}-1"]

    def bring_back(self, name: str) -> None:
        """Start a process that has ended, and again if it ends, as a service manager does."""
        for _ in range(STARTS_MAX - 1):
            # It refuses to start on a database that does not answer it in 2 s.
            with suppress(DevstackError):
                return self.stack.start(name)
        return self.stack.start(name)

    def environment(self) -> dict[str, str]:
        direct = {"DATABASE_URL": self.stack.postgres.url, "REDIS_URL": self.stack.redis.url}
        return super().environment() | direct
