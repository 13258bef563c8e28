"""Finds out what a completions server serves. Knows nothing of drafts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ringfence.engine import EngineCard
from ringfence.engines.connection import Connection
from ringfence.engines.descriptions import Description, describe
from ringfence.errors import EngineError

_DEFAULT_SLOTS = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Discovery:
    """What is behind a URL.

    Attributes:
        card: what the engine shows.
        model: the server's name for the model.
        description: the model by its files.
    """

    card: EngineCard
    model: str
    description: Description


async def discover(
    connection: Connection,
    model: str,
    *,
    tokenizer: str | Path | None,
    context: int | None,
    slots: int | None,
) -> Discovery:
    """Ask a server what it has, and add what the model's files say.

    Args:
        connection: to the server.
        model: the server's name of one of its models; empty if it has only one.
        tokenizer: folder or GGUF file; None if the server is to tell.
        context: overrides what the server says.
        slots: likewise.

    Raises:
        EngineError: unreachable, ambiguous, or something is missing; says the way out.
    """
    served = await _served(connection, model)
    props = await _llama_props(connection, served)
    description = describe(_tokenizer_source(connection, tokenizer, props))
    card = _card(connection, served, props, description, context, slots)
    return Discovery(card=card, model=str(served["id"]), description=description)


async def _served(connection: Connection, model: str) -> dict[str, Any]:
    """The server's entry for a model, or for its only one."""
    listed = (await connection.get("models")).get("data")
    entries = {str(entry.get("id")): entry for entry in listed or [] if isinstance(entry, dict)}
    if model in entries:
        # vLLM tells the context of an adapter's base only.
        base = entries.get(str(entries[model].get("parent")), {})
        window = entries[model].get("max_model_len") or base.get("max_model_len")
        return entries[model] | ({"max_model_len": window} if window else {})
    if not model and len(entries) == 1:
        return next(iter(entries.values()))
    what = f"serves no {model!r}" if model else "serves not exactly one model"
    raise EngineError(
        f"{connection.name} {what}; it has: {', '.join(sorted(entries)) or 'none'}. Name one as "
        "in http://HOST/v1#MODEL."
    )


async def _llama_props(connection: Connection, served: dict[str, Any]) -> dict[str, Any]:
    """What llama.cpp tells of itself; empty for other servers."""
    if served.get("owned_by") != "llamacpp":
        return {}
    return await connection.get(f"{connection.name.removesuffix('/v1')}/props")


def _tokenizer_source(
    connection: Connection, tokenizer: str | Path | None, props: dict[str, Any]
) -> str | Path:
    if tokenizer is not None:
        return tokenizer
    path = Path(str(props.get("model_path", "")))
    local = urlsplit(connection.name).hostname in ("127.0.0.1", "localhost", "::1")
    if local and path.is_file():
        return path
    raise EngineError(
        f"{connection.name} speaks in token ids, and its tokenizer is not known here. Pass "
        "tokenizer=PATH: a folder with the model's tokenizer.json, or a GGUF file of it."
    )


def _card(
    connection: Connection,
    served: dict[str, Any],
    props: dict[str, Any],
    description: Description,
    context: int | None,
    slots: int | None,
) -> EngineCard:
    meta = served.get("meta") or {}
    # llama.cpp shares its context among slots, and says under `meta` what there is in all.
    slot = props.get("default_generation_settings") or {}
    window = context or served.get("max_model_len") or slot.get("n_ctx") or meta.get("n_ctx")
    window = window or description.context
    if not isinstance(window, int) or window < 1:
        raise EngineError(f"{connection.name} does not tell its context; pass context=TOKENS")
    slots = slots or props.get("total_slots") or _DEFAULT_SLOTS
    if slots < 1:
        raise EngineError(f"slots must be at least 1, not {slots}")
    return EngineCard(
        name=f"{connection.name}#{served['id']}",
        tokenizer=description.tokenizer,
        template=description.template,
        bos=description.bos,
        eos=description.eos,
        ends=description.ends,
        context=window,
        slots=slots,
        deterministic=False,
    )
