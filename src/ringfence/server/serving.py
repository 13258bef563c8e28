"""Listening and stopping: uvicorn around the application. Knows nothing of requests.

A stop never cuts a connection: nobody new is let in, those inside finish or, at the deadline, are
refused with a proper end.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

import uvicorn
from fastapi import FastAPI

from ringfence.errors import InputError
from ringfence.server.service import Service

logger = logging.getLogger("ringfence.server")

# Clients keep connections open and use them again; one that the server closes first, just as the
# client sends, looks like a failure.
_IDLE_SECONDS = 65
# After the deadline everything has ended on our side; this is for the client to read it.
_LAST_WORDS_SECONDS = 5


async def serve(
    app: FastAPI,
    host: str | None = None,
    port: int | None = None,
    *,
    started: Callable[[str], None] | None = None,
) -> None:
    """Serve until SIGINT or SIGTERM, then stop gracefully and return. Does not close the engine.

    A second SIGINT cuts what still runs.

    Args:
        app: of `create_app`.
        host: address to listen on; None takes that of the settings.
        port: likewise; 0 takes a free one.
        started: called once the server listens, with a line for people: where, and what guards the
            replies. None logs it.

    Raises:
        InputError: an address that cannot be listened on, or one off loopback without a key.
    """
    service: Service = app.state.service
    settings = service.settings
    host = settings.host if host is None else host
    settings.check_exposure(host)
    listener = _listener(host, settings.port if port is None else port)
    with listener:
        await Server(app, listener, started or logger.warning).serve([listener])


class Server(uvicorn.Server):
    """uvicorn, with our way to stop. `should_exit = True` stops it as a signal would."""

    def __init__(
        self, app: FastAPI, listener: socket.socket, started: Callable[[str], None]
    ) -> None:
        """Ready to `serve([listener])`."""
        service: Service = app.state.service
        config = uvicorn.Config(
            app,
            access_log=False,
            log_config=None,
            server_header=False,
            proxy_headers=False,
            lifespan="off",
            ws="none",
            timeout_keep_alive=_IDLE_SECONDS,
            timeout_graceful_shutdown=int(service.settings.stop_seconds) + _LAST_WORDS_SECONDS,
        )
        super().__init__(config)
        self._service = service
        self._announce = started
        host, port = listener.getsockname()[:2]
        self.url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, and say so."""
        await super().startup(sockets)
        service = self._service
        self._announce(f"{service.planner.model} on {self.url}/v1. {service.notice}")

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Close the door, and let those inside finish or be refused."""
        stopping = asyncio.create_task(self._service.stop())
        await super().shutdown(sockets)
        if self.force_exit:
            stopping.cancel()
        await asyncio.wait([stopping])

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Handle signals here, once: uvicorn would raise them again after a graceful stop.

        That would end the process before whoever called `serve` could close the engine.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        signals = (signal.SIGINT, signal.SIGTERM)
        before = {number: signal.signal(number, self._stop) for number in signals}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _stop(self, number: int, frame: FrameType | None) -> None:
        self.handle_exit(number, frame)


def _listener(host: str, port: int) -> socket.socket:
    """A socket bound to the first address that the host has.

    Raises:
        InputError: there is none, or it is taken.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, address = found[0]
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise InputError(f"cannot listen on host {host!r}: {error}") from error
    try:
        # Connections of a server that just stopped must not keep the next one from starting.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as error:
        listener.close()
        raise InputError(
            f"cannot listen on {host}, port {port}: {error}. Choose another port; 0 takes a free "
            "one."
        ) from error
    return listener
