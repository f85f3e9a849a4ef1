"""The web server: one uvicorn process on one socket."""

import errno
import ipaddress
import logging
import os
import signal
import socket
from collections.abc import Iterable
from pathlib import Path

import uvicorn
from django.apps import apps
from django.conf import settings
from uvicorn.supervisors.statreload import StatReload

from config import runtime
from config.checks import StartRefused, require_private_debugging
from config.environment import PROJECT_DIR
from config.http_protocol import LimitedHttpProtocol

logger = logging.getLogger(__name__)

APPLICATION = "config.asgi:application"
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)
LOCAL_HOSTS = ("127.0.0.1", "0.0.0.0", "::", "::1")  # noqa: S104  # compared, not listened on
PORT_MAX = 65535
BACKLOG_MAX = 2048
# With the worker's five seconds, below the ten that a container engine waits before it kills.
STOP_TIMEOUT_SECONDS = 4
# Longer than proxies keep theirs, so that it is they who close a quiet connection.
KEEP_ALIVE_SECONDS = 75


def serve(host: str, port: int, *, reload: bool = False) -> None:
    """Serve until SIGTERM or SIGINT; with `reload`, start anew whenever a source file changes."""
    require_private_debugging(host)
    listener = listen(host, port)
    if settings.METRICS_PORT and not reload:
        # Taken for good when the process starts its parts; here it is refused in one line.
        listen(settings.METRICS_HOST, settings.METRICS_PORT, "METRICS_PORT").close()
    config = uvicorn.Config(
        APPLICATION,
        host=host,
        port=listener.getsockname()[1],
        loop="uvloop",
        http=LimitedHttpProtocol,
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        proxy_headers=bool(settings.TRUSTED_PROXIES),
        forwarded_allow_ips=trusted(settings.TRUSTED_PROXIES),
        server_header=False,
        backlog=BACKLOG_MAX,
        workers=1,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=STOP_TIMEOUT_SECONDS,
        reload=reload,
        reload_dirs=_source_folders() if reload else None,
    )
    server = AnnouncingServer(config)
    if reload:
        StatReload(config, target=server.run, sockets=[listener]).run()
        return
    # uvicorn raises a signal once more after its clean stop; here it has done its work by then.
    before = {number: signal.signal(number, signal.SIG_IGN) for number in STOP_SIGNALS}
    server.run(sockets=[listener])
    for number, handler in before.items():
        signal.signal(number, handler)


def trusted(proxies: Iterable[str]) -> list[str]:
    """Return the proxies as uvicorn compares them: on `::` an IPv4 address comes as one of IPv6."""
    networks = [ipaddress.ip_network(proxy) for proxy in proxies]
    mapped = [
        f"::ffff:{network.network_address}/{96 + network.prefixlen}"
        for network in networks
        if network.version == 4
    ]
    return [*map(str, networks), *mapped]


def listen(host: str, port: int, variable: str = "PORT") -> socket.socket:
    """Return a socket that listens, or say in one line why there is none.

    `variable` is the setting that another port would go into.
    """
    where = f"{host}:{port}"
    if not 0 <= port <= PORT_MAX:
        raise StartRefused(f"Port {port} does not exist; allowed: 0 to {PORT_MAX}")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise StartRefused(f"Cannot listen on {where}: {error.strerror}") from error
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        # Two sockets may be bound to one port; only one may listen on it.
        listener.listen(BACKLOG_MAX)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise StartRefused(
                f"Port {port} is in use on {host}; choose another: {variable}={port + 1}"
            ) from error
        raise StartRefused(f"Cannot listen on {where}: {os.strerror(error.errno or 0)}") from error
    return listener


class AnnouncingServer(uvicorn.Server):
    """Says where it serves, once it does."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            host = "localhost" if self.config.host in LOCAL_HOSTS else self.config.host
            url = f"http://{host}:{self.config.port}"
            if settings.LOG_FORMAT == "json":
                # Whoever collects lines of JSON wants no others.
                logger.info("serves on %s", url)
            else:
                announce(url)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop; whoever waits for a message or follows it can go on elsewhere."""
        from config import asgi
        from conversations import replies

        asgi.cut_streams()
        replies.stop_waiting()
        await super().shutdown(sockets)
        runtime.leave()


def announce(url: str) -> None:
    """Print the addresses and a command to paste."""
    print(  # noqa: T201  # the command's output, not a log line
        f"Chatledger serves on {url}\n"
        f"  read        {url}/docs\n"
        f"  register    POST {url}/users/register/\n"
        f"  log in      POST {url}/users/login/\n"
        f"  send        POST {url}/send/\n"
        f"  balance     GET  {url}/token/\n"
        f"  users       GET  {url}/users/\n"
        "Paste this to begin:\n"
        f"  curl -s {url}/users/register/ -H 'Content-Type: application/json'"
        """ -d '{"username": "alice", "password": "a-long-passphrase"}'""",
        flush=True,
    )


def _source_folders() -> list[str]:
    paths = [Path(app.path) for app in apps.get_app_configs()]
    return [str(path) for path in paths if path.parent == PROJECT_DIR]
