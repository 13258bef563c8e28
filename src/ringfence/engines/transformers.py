"""A model in this process, through transformers: exact and white box. Knows nothing of HTTP.

torch and transformers are imported when an engine is opened, and never before.
"""

from __future__ import annotations

import asyncio
import functools
import os
import random
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from ringfence.adapters import chosen
from ringfence.engine import Draft, EngineCard, Sampling, Scores, Tokens, check_call
from ringfence.engines.adapting import Rings, adapted
from ringfence.engines.chat_templates import Value, with_template
from ringfence.engines.descriptions import describe
from ringfence.engines.file_stamps import stamp
from ringfence.engines.kept_caches import Cache, KeptCaches, empty_cache, fork
from ringfence.engines.rows import Row, batches, extend
from ringfence.engines.weights import context_of, find_weights, import_library, load_model
from ringfence.errors import EngineError

# torch and transformers may be absent when this module is checked, so their types have no names.
Tensor = Any

Answer = TypeVar("Answer")
Job = Callable[[threading.Event], Answer]

# Tokens of a prefix per forward pass: bounds the memory of attention, and how long a cancelled
# call goes on.
_CHUNK = 512


class TransformersEngine:
    """Drafts and exact probabilities from a model in this process; see `engine.Engine`.

    One thread works, one call after the other. The prefix of a call is processed once, as far as
    no kept cache covers it, and its cache forked for every draft. Kept caches are cropped where a
    prefix leaves them, so a rewind processes one token: the last, for its next-token distribution.

    Reuse and batching do not change what is drawn in float32, rounding aside. In a 16-bit type
    rounding is coarse enough to change a draft, hence `card.deterministic` is False there.

    Attributes:
        model: the transformers model, in evaluation mode, without gradients on its parameters.
        embeddings: its input embedding module.
    """

    def __init__(
        self, model: Any, card: EngineCard, cache_tokens: int, rings: Rings | None = None
    ) -> None:
        """Wrap a loaded model; use `open` instead.

        Args:
            model: a causal language model.
            card: what it is.
            cache_tokens: most tokens to keep cached keys and values of.
            rings: of the model's ring signal, if it has one.
        """
        self.model = model
        self.embeddings = model.get_input_embeddings()
        self._card = card
        self._torch = import_library("torch")
        self._rings = rings or Rings()
        self._kept = KeptCaches(cache_tokens)
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="ringfence-transformers")
        self._closed = threading.Event()

    @classmethod
    def open(
        cls,
        path: str | Path,
        *,
        device: str | None = None,
        dtype: str | None = None,
        slots: int = 16,
        cache_tokens: int = 32_768,
        adapter: str | Path | None = None,
        rings_strength: float | None = None,
        tokenizer: str | Path | None = None,
        chat_template: str | Path | None = None,
        template_options: Mapping[str, Value] | None = None,
    ) -> TransformersEngine:
        """Load a model. Takes seconds to minutes, so do it before the event loop runs.

        Args:
            path: a model folder (safetensors, tokenizer.json), a GGUF file (dequantised), or a
                name on the Hugging Face hub (`owner/name`; downloaded first).
            device: such as `cpu` or `cuda:1`; None takes an accelerator if there is one.
            dtype: such as `float32` or `bfloat16`; None is float32 on a CPU and the checkpoint's
                own type elsewhere.
            slots: most drafts or continuations in one batch.
            cache_tokens: most tokens to keep cached keys and values of between calls.
            adapter: a folder with a LoRA adapter as PEFT saves it, a ring signal, or both.
            rings_strength: scales the adapter, 0 to 2; None is 1, and 0 is the base model exactly.
            tokenizer: a folder with the model's `tokenizer.json`, for a GGUF file whose own
                tokenizer is of a kind that is not read from GGUF.
            chat_template: a file with another chat template than the model's own.
            template_options: variables for the chat template, such as `enable_thinking`.

        Raises:
            EngineError: a library is missing, or the model cannot be loaded or is refused.
            InputError: the adapter cannot be used, or not with this model.
        """
        if slots < 1 or cache_tokens < 0:
            raise EngineError(
                f"slots must be at least 1 and cache_tokens at least 0, not {slots} and "
                f"{cache_tokens}"
            )
        wanted = chosen(adapter, rings_strength)
        torch = import_library("torch")
        found = find_weights(path)
        description = describe(found, tokenizer)
        description = with_template(description, chat_template, template_options)
        device = device or str(torch.accelerator.current_accelerator() or "cpu")
        model = load_model(found, device, dtype or ("float32" if device == "cpu" else "auto"))
        empty_cache(model.config)  # refuses a model that cannot rewind before it is used
        rings = adapted(model, wanted, description.tokenizer)
        # The folder of a download is named by its revision.
        name = description.name if Path(os.path.expanduser(path)).exists() else path
        card = EngineCard(
            name=f"hf:{name}" + (f"+{wanted.label}" if wanted else ""),
            tokenizer=description.tokenizer,
            template=description.template,
            bos=description.bos,
            eos=description.eos,
            ends=description.ends,
            context=context_of(model),
            slots=slots,
            deterministic=model.dtype == torch.float32,
            stamp=stamp(found, wanted.path if wanted else None),
        )
        return cls(model, card, cache_tokens, rings)

    @property
    def card(self) -> EngineCard:
        """See `Engine.card`."""
        return self._card

    async def draft(
        self, prefix: Tokens, count: int, length: int, sampling: Sampling
    ) -> list[Draft]:
        """See `Engine.draft`. Draft i of a seed does not depend on `count`.

        A token that holds both the beginning of a stop string and text before it is dropped whole.
        top_k and top_p choose among the model's own probabilities, before the temperature.
        """
        check_call(self._card, prefix, count, length)
        self._check(prefix)
        return await self._work(functools.partial(self._draft, prefix, count, length, sampling))

    async def logprobs(self, prefix: Tokens, continuations: Sequence[Tokens]) -> Scores:
        """See `Engine.logprobs`."""
        if not continuations or not all(continuations):
            raise EngineError("logprobs needs continuations of at least one token each")
        check_call(self._card, prefix, len(continuations), max(map(len, continuations)))
        self._check(prefix, *continuations)
        return await self._work(functools.partial(self._score, prefix, continuations))

    async def aclose(self) -> None:
        """See `Engine.aclose`. Calls still under way raise EngineError at their next token."""
        self._closed.set()
        await asyncio.to_thread(self._worker.shutdown)
        self._kept.clear()
        self.model = self.embeddings = None

    def _check(self, *sequences: Tokens) -> None:
        """Refuse calls to a closed engine, and ids the model does not have."""
        if self._closed.is_set():
            raise EngineError(f"{self._card.name} is closed; open it again")
        # Out of range, an index on a GPU breaks the whole process, not just the call.
        known = self.embeddings.weight.shape[0]
        if not all(0 <= min(tokens) and max(tokens) < known for tokens in sequences):
            raise EngineError(
                f"token ids must lie in 0 to {known - 1} for {self._card.name}; were these tokens "
                "made by another model's tokenizer?"
            )

    async def _work(self, job: Job[Answer]) -> Answer:
        """Run a job on the worker thread; it stops at its next token if this is cancelled."""
        cancelled = threading.Event()
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(self._worker, self._run, job, cancelled)
        finally:
            cancelled.set()

    def _run(self, job: Job[Answer], cancelled: threading.Event) -> Answer:
        try:
            with self._torch.inference_mode():
                return job(cancelled)
        except self._torch.OutOfMemoryError as error:
            self._kept.clear()
            raise EngineError(
                f"{self._card.name} ran out of memory on {self.model.device}. Open it with fewer "
                f"slots (now {self._card.slots}) or a smaller cache_tokens."
            ) from error

    def _go_on(self, cancelled: threading.Event) -> None:
        """Called before every forward pass; ends the job if nobody waits for it."""
        if cancelled.is_set() or self._closed.is_set():
            raise EngineError(f"the call was stopped, or {self._card.name} closed")

    def _draft(
        self,
        prefix: Tokens,
        count: int,
        length: int,
        sampling: Sampling,
        cancelled: threading.Event,
    ) -> list[Draft]:
        cache, logprobs, fed = self._process(prefix, cancelled)
        seed = random.Random().getrandbits(32) if sampling.seed is None else sampling.seed
        distinct = count if sampling.temperature else 1
        rows = [
            Row(
                length=length,
                sampling=sampling,
                ends=self._card.ends,
                tokenizer=self._card.tokenizer,
                noise=self._generator(seed, index),
            )
            for index in range(distinct)
        ]
        for batch in batches(rows, self._card.slots):
            self._grow(batch, prefix, cache, logprobs, cancelled)
        drafts = [rows[index % distinct].draft() for index in range(count)]
        return [replace(drafts[0], fed=fed), *drafts[1:]]

    def _generator(self, seed: int, index: int) -> Any:
        generator = self._torch.Generator(self.model.device)
        return generator.manual_seed(random.Random(f"{seed}/{index}").getrandbits(63))

    def _process(self, prefix: Tokens, cancelled: threading.Event) -> tuple[Cache, Tensor, int]:
        """Process a prefix as far as it is not cached.

        Returns:
            Its cache of batch size 1, which is kept and must be forked before use; the next-token
            log-probabilities, [1, vocabulary]; the number of tokens processed.
        """
        # The last token is processed in any case: its logits are needed, and not kept.
        key, (levels, _) = self._rings.key(prefix), self._rings.levels(prefix)
        known, cache = self._kept.fork(key[:-1])
        cache = cache or empty_cache(self.model.config)
        for start in range(known, len(prefix), _CHUNK):
            self._go_on(cancelled)
            part = slice(start, start + _CHUNK)
            logprobs = self._forward([prefix[part]], [levels[part]], cache)
        self._kept.keep(key, cache)
        return cache, logprobs[:, -1], len(prefix) - known

    def _forward(
        self,
        rows: Sequence[Sequence[int]],
        levels: Sequence[Sequence[int]],
        cache: Cache,
        *,
        keep: int = 1,
        mask: Tensor = None,
    ) -> Tensor:
        """Extend a cache by rows of equal length, whose tokens are of these levels.

        Returns:
            float32 log-probabilities after each of the last `keep` tokens,
            [rows, keep, vocabulary].
        """
        ids = self._torch.tensor(rows, device=self.model.device)
        with self._rings.told(levels, ids):
            output = self.model(
                input_ids=ids,
                attention_mask=mask,
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=keep,
            )
        logprobs = output.logits[:, -keep:].float().log_softmax(-1)
        if logprobs.isnan().any():
            raise EngineError(
                f"{self._card.name} gives probabilities that are no numbers in "
                f"{self.model.dtype}. Open it with dtype='float32' or 'bfloat16'."
            )
        return logprobs

    def _grow(
        self,
        rows: Sequence[Row],
        prefix: Tokens,
        cache: Cache,
        logprobs: Tensor,
        cancelled: threading.Event,
    ) -> None:
        """Draw tokens for rows until each has ended; rows that have ended leave the batch."""
        live, steps = rows, 0
        _, own = self._rings.levels(prefix)
        cache = fork(cache)
        cache.batch_repeat_interleave(len(rows))
        logprobs = logprobs.expand(len(rows), -1)
        while True:
            extend(live, logprobs)
            staying = [index for index, row in enumerate(live) if not row.ended]
            if not staying:
                break
            if len(staying) < len(live):
                live = [live[index] for index in staying]
                cache.batch_select_indices(self._torch.tensor(staying, device=self.model.device))
            self._go_on(cancelled)
            last = [row.tokens[-1:] for row in live]
            logprobs = self._forward(last, [[own]] * len(live), cache)[:, -1]
            steps += 1
        if len(rows) == 1:
            # Most likely the next prefix begins with this draft. Of several drafts the caches are
            # not kept: each would hold the whole prefix again, for a few tokens saved.
            cached = rows[0].tokens[:steps]
            cache.crop(len(cached) - steps)
            self._kept.keep(self._rings.key(prefix + tuple(cached)), cache)

    def _score(
        self, prefix: Tokens, continuations: Sequence[Tokens], cancelled: threading.Event
    ) -> Scores:
        cache, logprobs, fed = self._process(prefix, cancelled)
        scores: list[float] = []
        for batch in batches(continuations, self._card.slots):
            self._go_on(cancelled)
            scores += self._score_batch(prefix, cache, logprobs[0], batch)
        fed += sum(len(tokens) - 1 for tokens in continuations)
        return Scores(logprobs=tuple(scores), fed=fed, requests=1)

    def _score_batch(
        self, prefix: Tokens, cache: Cache, first: Tensor, continuations: Sequence[Tokens]
    ) -> list[float]:
        """Score continuations after a cached prefix and its next-token distribution."""
        scores = [float(first[tokens[0]]) for tokens in continuations]
        width = max(map(len, continuations)) - 1
        if width == 0:
            return scores
        padding = [width - len(tokens) + 1 for tokens in continuations]
        cache = fork(cache)
        cache.batch_repeat_interleave(len(continuations))
        rows = [
            [*tokens[:-1], *[0] * pad] for tokens, pad in zip(continuations, padding, strict=True)
        ]
        mask = [[1] * (len(prefix) + width - pad) + [0] * pad for pad in padding]
        _, own = self._rings.levels(prefix)
        levels, masked = [[own] * width] * len(rows), self._torch.tensor(mask).to(first.device)
        logprobs = self._forward(rows, levels, cache, keep=width, mask=masked)
        for index, tokens in enumerate(continuations):
            targets = self._torch.tensor(tokens[1:], device=self.model.device, dtype=int)
            picked = logprobs[index, : len(targets)].gather(-1, targets[:, None])
            scores[index] += float(picked.double().sum())
        return scores
