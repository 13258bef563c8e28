"""How far long work is and when it will be done, on stderr. Knows nothing of the work."""

from __future__ import annotations

import sys
import time

from ringfence.commandline.escaping import one_line
from ringfence.commandline.failures import say

# Seconds between two lines of progress: in a terminal one line that moves, elsewhere lines.
_PAUSE_MOVING = 0.1
_PAUSE = 5.0


class Progress:
    """Progress of one piece of work after another.

    The clock of a piece starts with `begin`, so that what a resumed job found done, and what came
    before, count for no speed.
    """

    def __init__(self) -> None:
        """Begin with `begin`."""
        self._moving = sys.stderr.isatty()
        self._shown = float("-inf") if self._moving else time.monotonic()
        self._began, self._start, self._words = time.monotonic(), 0, ""

    def begin(self, done: int = 0, words: str = "") -> None:
        """Start a piece of work of which `done` is there already; `words` say what it is."""
        self._began, self._start, self._words = time.monotonic(), done, words

    def show(self, finished: int, total: int, note: str = "") -> None:
        """Tell how far it is, at most so often."""
        now = time.monotonic()
        pause = _PAUSE_MOVING if self._moving else _PAUSE
        made = finished - self._start
        if now - self._shown < pause or made < 1:
            return
        self._shown = now
        speed = made / max(now - self._began, 1e-9)
        head = f"{self._words}: " if self._words else ""
        text = (
            f"{head}{finished} of {total}{note}  {speed:.2f}/s  "
            f"ETA {_clock((total - finished) / speed)}"
        )
        if self._moving:
            print(f"\r\x1b[K{one_line(text)}", end="", file=sys.stderr, flush=True)
        else:
            say(text)

    def end(self) -> None:
        """Take the moving line away."""
        if self._moving:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
