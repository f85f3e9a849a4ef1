"""The port on which a process tells Prometheus its metrics."""

import socket
import threading
import time
from contextlib import suppress
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler

from prometheus_client import REGISTRY, disable_created_metrics, make_wsgi_app
from prometheus_client.exposition import ThreadingWSGIServer

from config.metrics.state import State
from config.serving import listen

#: How long a client may take to say what it wants, and to take a part of the answer.
CLIENT_SECONDS_MAX = 5
#: How long a connection may last in all, with the looks that an answer takes.
CONNECTION_SECONDS_MAX = 10.0
#: Clients at a time; whoever comes beyond that is hung up on.
CLIENTS_MAX = 8
#: How often the server looks whether it shall stop.
STOP_POLL_SECONDS = 0.1


class MetricsServer:
    """Serves the process's metrics until it is stopped, and with them what `state` collects.

    Raises `StartRefused` when it cannot listen.
    """

    def __init__(self, host: str, port: int, state: State | None = None) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # it has no types
        self._server = _Server(listen(host, port, "METRICS_PORT"))
        self._state = state
        if state is not None:
            REGISTRY.register(state)
        self._thread = threading.Thread(
            target=self._server.serve_forever,
            args=(STOP_POLL_SECONDS,),
            name="metrics",
            daemon=True,
        )
        self._thread.start()

    def stop(self) -> None:
        """Stop listening; what is being answered is answered."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(CLIENT_SECONDS_MAX)
        if self._state is not None:
            REGISTRY.unregister(self._state)
            self._state.close()


class _Handler(WSGIRequestHandler):
    timeout = CLIENT_SECONDS_MAX

    def log_message(self, *_: Any) -> None:
        """Say nothing of a scrape: there is one every few seconds."""


class _Server(ThreadingWSGIServer):
    def __init__(self, listener: socket.socket) -> None:
        address = listener.getsockname()
        super().__init__(address[:2], _Handler, bind_and_activate=False)
        self.socket.close()
        self.socket = listener
        # Not the names of `server_bind`, which asks a name server for ours.
        self.server_name, self.server_port = address[:2]
        self.setup_environ()
        self.set_app(make_wsgi_app())
        self._places = threading.BoundedSemaphore(CLIENTS_MAX)
        self._deadlines: dict[socket.socket, float] = {}

    def process_request(self, request: Any, client_address: Any) -> None:
        if not self._places.acquire(blocking=False):
            self.shutdown_request(request)
            return
        self._deadlines[request] = time.monotonic() + CONNECTION_SECONDS_MAX
        try:
            super().process_request(request, client_address)
        except BaseException:
            self._leave(request)
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._leave(request)

    def _leave(self, request: socket.socket) -> None:
        del self._deadlines[request]
        self._places.release()

    def service_actions(self) -> None:
        """End what lasts too long: a byte from time to time keeps no place."""
        now = time.monotonic()
        for request, deadline in list(self._deadlines.items()):
            if deadline <= now:
                with suppress(OSError):  # it has just ended by itself
                    request.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Leave a client that hangs up, or is too slow, to itself."""
