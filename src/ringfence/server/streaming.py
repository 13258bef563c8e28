"""Sending: server-sent events, and noticing at once that a client is gone.

Knows nothing of what is sent.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from contextlib import aclosing
from typing import Any, TypeVar

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from ringfence.server.failures import encoded

T = TypeVar("T")

DONE = "data: [DONE]\n\n"
SEARCHING = ": searching\n\n"


class ClientGone(Exception):
    """The client closed its connection; there is nobody to answer."""


def event(content: object) -> str:
    """One server-sent event."""
    return f"data: {encoded(content)}\n\n"


async def unless_gone(receive: Receive, work: Coroutine[Any, Any, T]) -> T:
    """The result of the work, which is cancelled as soon as the client leaves.

    Raises:
        ClientGone: it left.
    """
    doing = asyncio.create_task(work)
    leaving = asyncio.create_task(_gone(receive))
    try:
        await asyncio.wait((doing, leaving), return_when=asyncio.FIRST_COMPLETED)
        if doing.done():
            return doing.result()
        raise ClientGone
    finally:
        for task in (doing, leaving):
            task.cancel()
        await asyncio.wait((doing, leaving))


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


class EventStream(Response):
    """Server-sent events. `close` is awaited at the end, however the stream ends."""

    media_type = "text/event-stream"

    def __init__(
        self, parts: AsyncGenerator[str, None], close: Callable[[], Awaitable[None]]
    ) -> None:
        """Parts are sent one by one, as they come."""
        # Proxies must not wait for more before they pass a part on.
        super().__init__(headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self._parts = parts
        self._close = close

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send until the parts end or the client leaves."""
        try:
            await unless_gone(receive, self._send(send))
        except (ClientGone, OSError):
            # Nobody is listening, so there is nobody to tell.
            pass
        finally:
            await self._close()

    async def _send(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        async with aclosing(self._parts) as parts:
            async for part in parts:
                body = part.encode("utf-8", "replace")
                await send({"type": "http.response.body", "body": body, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})
