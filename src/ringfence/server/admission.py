"""Who may run now and who waits: a bounded queue before a fixed number of slots.

Knows nothing of what is run.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from ringfence.server.failures import Failure

# Bounds of the advice given in Retry-After, in seconds.
_SOONEST, _LATEST = 1, 60
# Weight of the newest request in the running mean of how long requests take.
_NEWEST = 0.2


class Admission:
    """At most `concurrency` requests run, at most `queue` wait, first come first served."""

    def __init__(self, concurrency: int, queue: int) -> None:
        """Everything is free."""
        self.running = 0
        self.stopping = False
        self._concurrency = concurrency
        self._queue = queue
        self._waiters: deque[asyncio.Future[None]] = deque()
        self._mean_seconds = 1.0

    @property
    def waiting(self) -> int:
        """Requests in the queue."""
        return len(self._waiters)

    def check_open(self) -> None:
        """Refuse whoever comes while the server stops.

        Raises:
            Failure: 503.
        """
        if self.stopping:
            raise Failure(
                503,
                "the server is stopping; try again at the next one",
                code="stopping",
                headers={"Retry-After": str(_SOONEST)},
            )

    def check(self) -> None:
        """Refuse now what `slot` would refuse, before anything is spent on the request.

        Raises:
            Failure: the queue is full (429) or the server stops (503).
        """
        self.check_open()
        if self.running >= self._concurrency and len(self._waiters) >= self._queue:
            raise Failure(
                429,
                f"{self.running} requests run and {self.waiting} wait, which is all there is room "
                "for; try again later",
                code="queue_full",
                headers={"Retry-After": str(self._retry_after())},
            )

    @asynccontextmanager
    async def slot(self) -> AsyncIterator[None]:
        """Wait for a slot, and give it back.

        Raises:
            Failure: as `check`.
        """
        self.check()
        if self.running < self._concurrency:
            self.running += 1
        else:
            await self._turn()
        started = time.monotonic()
        try:
            yield
        finally:
            self._mean_seconds += _NEWEST * (time.monotonic() - started - self._mean_seconds)
            self._pass_on()

    async def _turn(self) -> None:
        """Wait until another request passes its slot on."""
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                # The slot came together with the cancellation.
                self._pass_on()
            elif turn in self._waiters:
                self._waiters.remove(turn)
            raise

    def _pass_on(self) -> None:
        """Give a slot to whoever waits longest, or free it."""
        while self._waiters:
            turn = self._waiters.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self.running -= 1

    def _retry_after(self) -> int:
        """Seconds until a slot is likely to be free for one more request."""
        ahead = (self.waiting + 1) / self._concurrency
        return max(_SOONEST, min(_LATEST, math.ceil(ahead * self._mean_seconds)))
