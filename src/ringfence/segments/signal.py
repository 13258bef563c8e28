"""A learned embedding per ring, added inside any causal language model. Knows no conversations.

At the input as in ISE (instructional segment embeddings), or before every decoder block as in AIR
(augmented intermediate representations). By forward hooks: the model's own modules and files stay
as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor, nn

from ringfence.errors import InputError
from ringfence.segments.ringed_tokens import NO_RING, RingedTokens
from ringfence.segments.saved import CARD, WEIGHTS, Kind, SignalCard, read_card, write
from ringfence.yaml_files import explain

# Name of the signal within the model, and of the argument of its forward pass.
_MODULE, _ARGUMENT = "ring_signal", "ring_ids"


class RingSignal(nn.Module):
    """Embeddings per ring, and whose tokens the coming forward pass is about.

    Made by `attach` or `load`. Tell it the rings of a forward pass either as a keyword of that
    pass, `model(input_ids=…, ring_ids=ids)`, or around it, `with signal.rings(ids): model(…)`.
    A forward pass that is told none adds nothing.

    Attributes:
        card: what it is.
        table: [places, rings, width], float32; zero at first, so that step 0 is the base model.
        strength: scales what is added.
    """

    def __init__(self, card: SignalCard, device: torch.device | None = None) -> None:
        """An untrained signal; `attach` puts it into a model."""
        super().__init__()
        self.card = card
        self.strength = 1.0
        self.table = nn.Parameter(
            torch.zeros(card.places, card.rings, card.width, dtype=torch.float32, device=device)
        )
        self._now: Tensor | None = None
        self._taken_by: list[nn.Module] = []

    @contextmanager
    def rings(self, ids: Tensor) -> Iterator[None]:
        """Forward passes inside the block are about tokens of these rings.

        Args:
            ids: levels [batch, length], parallel to the input ids, padding and packing included;
                negative ones add nothing.

        Raises:
            InputError: a level that the signal does not have.
        """
        before, self._now = self._now, self._checked(ids)
        try:
            yield
        finally:
            self._now = before

    def levels(self, tokens: Sequence[int]) -> tuple[tuple[int, ...], int]:
        """This signal's levels of tokens, and of what is appended to them.

        Rings are matched by name where both sides have names, else by level. Plain tokens have
        none.

        Raises:
            InputError: the tokens have a ring that the signal was not made for.
        """
        if not isinstance(tokens, RingedTokens):
            return (NO_RING,) * len(tokens), NO_RING
        level = {NO_RING: NO_RING}
        for ring in {*tokens.rings, tokens.reply} - {NO_RING}:
            level[ring] = self._level(ring, tokens.names)
        return tuple(level[ring] for ring in tokens.rings), level[tokens.reply]

    def _level(self, ring: int, names: Sequence[str]) -> int:
        own = self.card.names
        if own and ring < len(names):
            if names[ring] in own:
                return own.index(names[ring])
        elif 0 <= ring < self.card.rings:
            return ring
        name = repr(names[ring]) if ring < len(names) else str(ring)
        raise InputError(
            f"the adapter's ring signal knows no ring {name}; it was trained with "
            f"{', '.join(own) or f'{self.card.rings} rings'}. Use the policy of its training."
        )

    def save(self, folder: Path) -> None:
        """Write weights and card into an existing folder, each complete or not at all."""
        from safetensors.torch import save

        weights = save({"table": self.table.detach().float().cpu().contiguous()})
        write(folder / WEIGHTS, weights)
        write(folder / CARD, (self.card.model_dump_json(indent=2) + "\n").encode())

    def added(self, place: int, hidden: Tensor) -> Tensor:
        """Hidden states [batch, length, width] with the signal of one place.

        Raises:
            InputError: the rings of this forward pass are for other tokens.
        """
        ids = self._now
        if ids is None or not self.strength:
            return hidden
        if ids.shape != hidden.shape[:-1]:
            raise InputError(
                f"ring_ids of shape {tuple(ids.shape)} for tokens of shape "
                f"{tuple(hidden.shape[:-1])}; every token needs its own"
            )
        ids = ids.to(hidden.device)
        known = (ids >= 0).unsqueeze(-1)
        table = self.table[place].to(hidden.device)
        signal = nn.functional.embedding(ids.clamp_min(0), table) * known
        return hidden + (self.strength * signal).to(hidden.dtype)

    def take(self, module: nn.Module, args: Any, options: dict[str, Any]) -> Any:
        """Forward pre-hook: takes the keyword away, which the model itself does not know."""
        ids = options.pop(_ARGUMENT, None)
        if ids is not None:
            self._now = self._checked(ids)
            self._taken_by = [module]  # a list, or torch would take it for a submodule
        return args, options

    def forget(self, module: nn.Module, *_rest: Any) -> None:
        """Forward hook: the keyword held for one pass."""
        if self._taken_by and self._taken_by[0] is module:
            self._taken_by, self._now = [], None

    def _checked(self, ids: Tensor) -> Tensor:
        if ids.numel() and int(ids.max()) >= self.card.rings:
            raise InputError(
                f"ring_ids: there is a ring {int(ids.max())}, and the signal has levels 0 to "
                f"{self.card.rings - 1}"
            )
        return ids.long()


def attach(model: Any, kind: Kind = "input", *, rings: int | Sequence[str] = 5) -> RingSignal:
    """Add an untrained signal to a causal language model; its outputs stay the same.

    The signal becomes the submodule `ring_signal` of the model, so that optimizers, `.to()` and
    data-parallel wrappers find its parameters, which train alone or along with LoRA (attach after
    PEFT has wrapped the model, which freezes what it finds).

    Args:
        model: any transformers causal language model, PEFT-wrapped or not.
        kind: `input` adds to the input embeddings, `blocks` before every decoder block.
        rings: names of the rings, highest privilege first, or how many there are.

    Raises:
        InputError: there is a signal already, or the decoder blocks cannot be found.
    """
    names = () if isinstance(rings, int) else tuple(rings)
    count = rings if isinstance(rings, int) else len(names)
    places, width = _measures(_unwrapped(model), kind)
    try:
        card = SignalCard(kind=kind, rings=count, names=names, width=width, places=places)
    except ValidationError as error:
        raise InputError(f"ring signal: {explain(error)}") from None
    return _attached(model, card)


def load(folder: Path, model: Any, *, strength: float = 1.0) -> RingSignal:
    """Add the signal that `save` wrote.

    Raises:
        InputError: files that are missing or broken, or a signal of another model.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    card = read_card(folder)
    try:
        table = load_file(folder / WEIGHTS)["table"]
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise InputError(f"{folder}: the ring signal cannot be read: {error}") from error
    expected = (card.places, card.rings, card.width)
    if tuple(table.shape) != expected or not bool(table.isfinite().all()):
        raise InputError(
            f"{folder / WEIGHTS}: must hold finite numbers of shape {expected}, as {CARD} says"
        )
    signal = _attached(model, card)
    with torch.no_grad():
        signal.table.copy_(table)
    signal.strength = strength
    return signal


def _attached(model: Any, card: SignalCard) -> RingSignal:
    inner = _unwrapped(model)
    if hasattr(inner, _MODULE):
        raise InputError("the model has a ring signal already")
    places, width = _measures(inner, card.kind)
    if (card.places, card.width) != (places, width):
        raise InputError(
            f"the ring signal is for {card.places} places of width {card.width}, and this model "
            f"has {places} of width {width}: it was trained on another model"
        )
    embeddings = inner.get_input_embeddings()
    signal = RingSignal(card, embeddings.weight.device)
    inner.add_module(_MODULE, signal)
    if card.kind == "blocks":
        for place, block in enumerate(_blocks(inner)):
            block.register_forward_pre_hook(_before(signal, place), with_kwargs=True)
    else:
        embeddings.register_forward_hook(lambda _module, _args, out: signal.added(0, out))
    # PEFT calls the forward method of the model it wraps, past its hooks; hence all of them.
    for outer in {id(each): each for each in (model, inner, _decoder(inner))}.values():
        outer.register_forward_pre_hook(signal.take, with_kwargs=True)
        outer.register_forward_hook(signal.forget, always_call=True)
    return signal


def _measures(model: Any, kind: Kind) -> tuple[int, int]:
    """How many places a signal has in this model, and how wide they are."""
    if kind == "blocks":
        return len(_blocks(model)), model.config.get_text_config().hidden_size
    return 1, model.get_input_embeddings().weight.shape[1]


def _before(signal: RingSignal, place: int) -> Callable[..., Any]:
    def add(_block: nn.Module, args: tuple[Any, ...], options: dict[str, Any]) -> Any:
        if args:
            return (signal.added(place, args[0]), *args[1:]), options
        return args, options | {"hidden_states": signal.added(place, options["hidden_states"])}

    return add


def _unwrapped(model: Any) -> Any:
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def _decoder(model: Any) -> Any:
    found = model.get_decoder() if hasattr(model, "get_decoder") else None
    return model if found is None else found


def _blocks(model: Any) -> list[nn.Module]:
    """The outermost list of as many modules as the config names layers."""
    depth = model.config.get_text_config().num_hidden_layers
    for module in _decoder(model).modules():
        if isinstance(module, nn.ModuleList) and len(module) == depth:
            return list(module)
    raise InputError(
        f"a {model.config.model_type} model has no list of {depth} decoder blocks to add a signal "
        "to; use kind='input'"
    )
