"""A conversation in the terminal that shows rewinds as they happen."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from typing import cast, get_args

from rich.console import Console
from rich.live import Live
from rich.style import Style
from rich.text import Text

from ringfence.commandline import terminal
from ringfence.commandline.event_lines import event_json
from ringfence.commandline.judging import admitted
from ringfence.commandline.stdin_lines import StdinLines
from ringfence.commandline.workplace import Workplace
from ringfence.errors import InputError, RingfenceError
from ringfence.events import Committed, Drafted, Ended, Event, Rewound
from ringfence.options import DecoderName
from ringfence.rendering import render
from ringfence.rings import Conversation
from ringfence.tree_view import DraftTree, signed

HELP = """\
/tree             the drafts behind the last reply: values, rewinds, what was dropped
/decoder NAME     plain, best-of-n, rejection, rain or guarded; without NAME: which it is
/principle NAME   judge by another principle, packaged or a file; without NAME: which it is
/system TEXT      set the system message and start a new conversation
/reset            start a new conversation
/help             this
/quit             leave (or Ctrl-D); Ctrl-C stops a reply"""


class Chat:
    """One conversation. Lines in, text or JSON out."""

    def __init__(self, place: Workplace, console: Console, *, as_json: bool) -> None:
        """Start an empty conversation.

        Args:
            place: engine, judge, decoder.
            console: for people; stderr if stdout carries JSON.
            as_json: print events on stdout as JSON lines.
        """
        self.messages: list[dict[str, str]] = []
        self.replying: asyncio.Task[None] | None = None
        self._place = place
        self._console = console
        self._json = as_json
        self._tree: DraftTree | None = None
        self._turn = 0
        self._commands: dict[str, Callable[[str], Awaitable[None]]] = {
            "/help": self._help,
            "/tree": self._show_tree,
            "/decoder": self._switch_decoder,
            "/principle": self._switch_principle,
            "/system": self._set_system,
            "/reset": self._reset,
        }

    async def take(self, line: str) -> bool:
        """Do what one line asks for; False if it asks to leave."""
        line = line.strip()
        word, _, rest = line.partition(" ")
        if word in ("/quit", "/exit"):
            return False
        try:
            if word in self._commands:
                await self._commands[word](rest.strip())
            elif line.startswith("/"):
                raise InputError(f"no command {word}; /help lists them")
            elif line:
                await self._reply(line)
        except RingfenceError as error:
            self._say(f"error: {error}")
        return True

    def interrupt(self) -> bool:
        """Stop the reply being made; False if there is none."""
        if self.replying is None:
            return False
        self.replying.cancel()
        return True

    async def _reply(self, line: str) -> None:
        """Answer in a task of its own, so that it can be stopped without the chat."""
        self.replying = asyncio.create_task(self._answer(line))
        try:
            await asyncio.wait([self.replying])
            if self.replying.cancelled():
                self._say("stopped; this turn is forgotten")
            else:
                self.replying.result()
        finally:
            self.replying.cancel()
            self.replying = None

    async def _answer(self, line: str) -> None:
        conversation = Conversation.of(
            [*self.messages, {"role": "user", "content": line}], self._place.policy
        )
        card = self._place.engine.card
        prompt = render(conversation, card)
        self._turn += 1
        self._tree = tree = DraftTree(line, card.tokenizer)
        view = _View(self._console, card.tokenizer.decode, quiet=self._json)
        with view:
            async with aclosing(self._place.events(prompt)) as events:
                async for event in events:
                    tree.grow(event)
                    view.show(event)
                    if self._json:
                        data = {"turn": self._turn, **event_json(event, card.tokenizer)}
                        terminal.emit(json.dumps(data))
        ended = tree.ended
        if ended is None or ended.reason == "refused":
            self._say(f"refused: {ended.detail if ended else ''}; this turn is forgotten")
            return
        self.messages += [
            {"role": "user", "content": line},
            {"role": "assistant", "content": view.text},
        ]
        self._say(_account(self._place.decoder, ended))

    async def _help(self, _: str) -> None:
        self._say(HELP)

    async def _show_tree(self, _: str) -> None:
        if self._tree is None:
            raise InputError("there is no reply yet")
        rows = self._tree.rows()
        self._console.print(terminal.tree(rows, min(self._console.width, 110)))

    async def _switch_decoder(self, name: str) -> None:
        if name:
            if name not in get_args(DecoderName):
                names = ", ".join(get_args(DecoderName))
                raise InputError(f"no decoder {name}. Decoders: {names}.")
            self._place = self._place.decoding(cast(DecoderName, name))
        self._say(f"decoder {self._place.decoder}")

    async def _switch_principle(self, name: str) -> None:
        if name:
            self._place = await self._place.judging(name)
            await admitted(self._place, force=True)
            if self._place.decoder == "plain":
                self._place = self._place.decoding("guarded")
        principle = self._place.principle
        self._say(f"principle {principle.name}: {principle.summary}" if principle else "none")

    async def _set_system(self, text: str) -> None:
        self.messages = [{"role": "system", "content": text}] if text else []
        self._say("new conversation")

    async def _reset(self, _: str) -> None:
        self.messages = [one for one in self.messages if one["role"] == "system"]
        self._say("new conversation")

    def _say(self, text: str) -> None:
        self._console.print(terminal.shown_lines(text, terminal.DIM))


class _View:
    """The reply as it grows: committed text, the draft in question, and drafts being dropped."""

    def __init__(
        self, console: Console, decode: Callable[[tuple[int, ...]], str], *, quiet: bool
    ) -> None:
        self.text = ""
        self._console = console
        self._decode = decode
        self._quiet = quiet
        self._draft = Text()
        self._live: Live | None = None
        if console.is_terminal and not quiet:
            # Ends as an ordinary line: what flashed is gone, what was committed stays.
            self._live = Live(
                Text(), console=console, refresh_per_second=20, vertical_overflow="visible"
            )

    def __enter__(self) -> _View:
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._draft = Text()
        if self._live:
            self._live.update(self._whole(), refresh=True)
            self._live.stop()
        elif not self._quiet and self.text:
            self._console.print(terminal.shown_lines(self.text))

    def show(self, event: Event) -> None:
        """Take in the next event."""
        if isinstance(event, Committed):
            self.text += event.text
            self._draft = Text()
        elif isinstance(event, Drafted):
            self._draft = terminal.shown_lines(self._decode(event.tokens), Style(dim=True))
        elif isinstance(event, Rewound):
            struck = Style(strike=True, color="red")
            self._draft = terminal.shown_lines(self._decode(event.dropped), struck)
            self._draft.append(f" {signed(event.value)}", Style(color="red"))
        if self._live:
            self._live.update(self._whole(), refresh=isinstance(event, Rewound))

    def _whole(self) -> Text:
        return terminal.shown_lines(self.text.lstrip("\n")) + self._draft


def _account(decoder: str, ended: Ended) -> str:
    cost = ended.cost
    value = "" if ended.value is None else f", value {signed(ended.value)}"
    rewinds = "" if decoder == "plain" else f", {cost.rewinds} rewinds"
    return (
        f"[{decoder}{value}{rewinds}, {cost.drafted} tokens drafted for {cost.committed}, "
        f"{cost.seconds:.1f} s]"
    )


async def chat(place: Workplace, console: Console, *, as_json: bool) -> None:
    """Talk until the input ends or somebody leaves.

    Args:
        place: engine, judge, decoder.
        console: for people; stderr if stdout carries JSON.
        as_json: print events on stdout as JSON lines.

    Raises:
        KeyboardInterrupt: Ctrl-C between replies, where nobody sits at a terminal.
    """
    lines = StdinLines(quiet=as_json)
    conversation = Chat(place, console, as_json=as_json)
    loop, main = asyncio.get_running_loop(), asyncio.current_task()
    assert main is not None

    def interrupted() -> None:
        if conversation.interrupt():
            return
        if lines.interactive:
            console.print("\n(/quit or Ctrl-D leaves)")
        else:
            main.cancel()

    if lines.interactive:
        name = place.principle.name if place.principle else "none"
        console.print(
            terminal.shown(
                f"{place.engine.card.name}, decoder {place.decoder}, principle {name}. /help lists "
                "commands; Ctrl-D leaves.",
                terminal.DIM,
            )
        )
    loop.add_signal_handler(signal.SIGINT, interrupted)
    try:
        while (line := await lines.next("you> ")) is not None:
            if not await conversation.take(line):
                return
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None
    finally:
        loop.remove_signal_handler(signal.SIGINT)
