"""Counts what a server has room for. Knows nothing of servers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Room:
    """So many cells, taken and given back; who asks first is served first.

    A llama.cpp server whose cache overflows fails all requests in flight, not just the last one,
    so those that do not fit have to wait outside.
    """

    def __init__(self, cells: int) -> None:
        """All cells are free."""
        self.cells = cells
        self._free = cells
        self._turn = asyncio.Lock()
        self._freed = asyncio.Event()

    @asynccontextmanager
    async def taken(self, cells: int) -> AsyncIterator[None]:
        """Hold cells inside the block; waits until there are as many. More than all is all."""
        cells = min(cells, self.cells)
        async with self._turn:
            while self._free < cells:
                self._freed.clear()
                await self._freed.wait()
            self._free -= cells
        try:
            yield
        finally:
            self._free += cells
            self._freed.set()
