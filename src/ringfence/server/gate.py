"""What every HTTP request passes first: host, key, size, and a net for what nobody foresaw.

Plain ASGI, since a middleware that wraps responses would hide a client's leaving. Knows nothing of
routes, and logs nothing of a request's contents.
"""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ringfence.server.failures import Failure, failure_of, log_failure
from ringfence.server.settings import ServerSettings, is_loopback

# Asked by load balancers, which have no key; it tells nothing.
_OPEN = frozenset({"/health"})
# A body that is too large is read to its end up to so many times the limit: a client that is still
# sending when the connection closes never gets to read why.
_PATIENCE = 8
# A body that does not arrive within this time holds memory for nothing.
_BODY_SECONDS = 60
# Requests inside beyond those that may run and wait: being read, checked or answered.
_PASSING = 64


class Gate:
    """ASGI middleware around the application."""

    def __init__(self, app: ASGIApp, settings: ServerSettings) -> None:
        """Wrap an application."""
        self._app = app
        key = settings.api_key
        self._key = None if key is None else key.get_secret_value().encode()
        self._limit = settings.body_bytes
        self._room = settings.concurrency + settings.queue + _PASSING
        self._inside = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer it here."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = False

        async def watched_send(message: Message) -> None:
            nonlocal started
            started = started or message["type"] == "http.response.start"
            await send(message)

        # What has no body is answered at once, and takes no room from what has one.
        posted = scope["method"] == "POST"
        self._inside += posted
        try:
            self._check(scope)
            body: bytes | None = b""
            if posted:
                async with _timeout():
                    body = await self._read(receive)
            if body is not None:
                await self._app(scope, _replay(body, receive), watched_send)
        except Exception as error:  # the net: whatever it is, the client gets an answer
            failure = failure_of(error)
            if failure.status >= 500:
                log_failure(error)
            if not started:
                await failure.response()(scope, receive, send)
        finally:
            self._inside -= posted

    def _check(self, scope: Scope) -> None:
        """Refuse requests without the key, and more than there can be room for.

        Raises:
            Failure: 401, 403 for a host name that is not this machine's, or 429.
        """
        headers: dict[bytes, bytes] = dict(scope["headers"])
        if self._key is None:
            # Without a key only this machine may ask. A web page that has a name of its own resolve
            # to 127.0.0.1 runs on this machine, but it cannot change the name it asks for.
            host = headers.get(b"host", b"").decode("latin-1")
            if not is_loopback(_without_port(host)):
                raise Failure(
                    403,
                    "without an api_key this server answers only to localhost; set an api_key to "
                    "use another name",
                    code="host_not_allowed",
                )
        elif scope["path"] not in _OPEN or scope["method"] not in ("GET", "HEAD"):
            scheme, _, token = headers.get(b"authorization", b"").partition(b" ")
            if scheme.lower() != b"bearer" or not hmac.compare_digest(token.strip(), self._key):
                raise Failure(
                    401,
                    "the API key is missing or wrong; send it as Authorization: Bearer KEY",
                    code="invalid_api_key",
                    headers={"WWW-Authenticate": "Bearer"},
                )
        if scope["method"] == "POST" and self._inside > self._room:
            raise Failure(
                429,
                "there are more requests than there is room for; try again later",
                code="queue_full",
                headers={"Retry-After": "1"},
            )

    async def _read(self, receive: Receive) -> bytes | None:
        """The whole body; None if the client left while sending it.

        Raises:
            Failure: 413.
        """
        parts: list[bytes] = []
        size, more = 0, True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return None
            part: bytes = message.get("body", b"")
            size += len(part)
            more = message.get("more_body", False) and size <= self._limit * _PATIENCE
            if size <= self._limit:
                parts.append(part)
            else:
                parts.clear()
        if size > self._limit:
            raise Failure(
                413,
                f"the body is larger than this server's limit of {self._limit} bytes",
                code="body_too_large",
            )
        return b"".join(parts)


@asynccontextmanager
async def _timeout() -> AsyncIterator[None]:
    """The time a body may take.

    Raises:
        Failure: 408.
    """
    try:
        async with asyncio.timeout(_BODY_SECONDS):
            yield
    except TimeoutError:
        raise Failure(
            408, f"the body did not arrive within {_BODY_SECONDS} seconds", code="body_too_slow"
        ) from None


def _replay(body: bytes, receive: Receive) -> Receive:
    """Give the body out once, then whatever comes, such as the client's leaving."""
    waiting = [body]

    async def replayed() -> Message:
        if waiting:
            return {"type": "http.request", "body": waiting.pop(), "more_body": False}
        return await receive()

    return replayed


def _without_port(host: str) -> str:
    """`[::1]:8000` → `[::1]`, `localhost:8000` → `localhost`."""
    if host.startswith("["):
        return host.partition("]")[0] + "]"
    return host.partition(":")[0]
