"""Lines from whoever types or pipes, without keeping the event loop waiting."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import threading

_CHUNK = 65_536


class StdinLines:
    """Standard input line by line.

    The reading thread is a daemon: one that waits for a line nobody will type must not keep the
    process alive. It reads the descriptor itself, since a thread that dies holding the lock of
    `sys.stdin` brings the interpreter down with it.
    """

    def __init__(self, *, quiet: bool = False) -> None:
        """Nothing is read before it is asked for.

        Args:
            quiet: stdout is for programs, and prompts go to stderr.
        """
        self.interactive = sys.stdin.isatty()
        self._quiet = quiet
        self._rest = b""

    async def next(self, prompt: str) -> str | None:
        """The next line without its end; None at the end of input.

        The prompt is shown to people only.
        """
        loop = asyncio.get_running_loop()
        line: asyncio.Future[str | None] = loop.create_future()

        def read() -> None:
            found = self._typed(prompt) if self.interactive else self._piped()
            # The loop is closed if nobody waits any more.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(deliver, found)

        def deliver(found: str | None) -> None:
            if not line.done():
                line.set_result(found)

        threading.Thread(target=read, daemon=True, name="stdin").start()
        return await line

    def _typed(self, prompt: str) -> str | None:
        # Importing it gives `input` line editing and a history.
        with contextlib.suppress(ImportError):
            import readline  # noqa: F401
        if self._quiet:
            print(prompt, end="", file=sys.stderr, flush=True)
        try:
            return input("" if self._quiet else prompt)
        except EOFError:
            return None

    def _piped(self) -> str | None:
        while b"\n" not in self._rest:
            try:
                chunk = os.read(sys.stdin.fileno(), _CHUNK)
            except OSError:
                chunk = b""
            if not chunk:
                rest, self._rest = self._rest, b""
                return rest.decode("utf-8", "replace") if rest else None
            self._rest += chunk
        line, _, self._rest = self._rest.partition(b"\n")
        return line.decode("utf-8", "replace").removesuffix("\r")
