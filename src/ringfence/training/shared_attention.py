"""Attention over rows that `sharing` laid out as trees, for models of transformers.

Registered under a name that transformers takes as `attn_implementation`. There is no mask, since
who sees whom comes with the batch; models that ask for one with a window are refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface

from ringfence.errors import InputError
from ringfence.training.sharing import Segment

NAME = "ringfence_shared"
# What a model may ask of its attention that segments do not know.
_REFUSED = ("sliding_window", "softcap", "s_aux")


class Seen:
    """Who sees whom in a batch of one long row; the same for every block of the model.

    It travels among the tensors of a batch as an object of its own, which no library looks into.
    """

    def __init__(self, segments: Sequence[Segment]) -> None:
        """Prepare masks for the segments that see others."""
        self.parts: list[tuple[slice, list[slice], Tensor | None]] = []
        for segment in segments:
            length, before = segment.stop - segment.start, [slice(*each) for each in segment.seen]
            above = sum(each.stop - each.start for each in before)
            mask = None
            if above:
                mask = torch.ones(length, above + length, dtype=torch.bool).tril(above)
            self.parts.append((slice(segment.start, segment.stop), before, mask))


def attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    seen: Seen | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """As transformers asks for it.

    Args:
        module: the attention layer.
        query: [1, heads, places, size of a head]; key and value may have fewer heads.
        key: see `query`.
        value: see `query`.
        attention_mask: none; `seen` takes its place.
        scaling: of the products; None is that of torch.
        dropout: share of the weights that is zeroed in training.
        seen: of the batch; None is one causal sequence, as in generation.
        options: others, which must ask for nothing that is not done here.

    Returns:
        [1, places, heads, size of a head], and no weights.

    Raises:
        InputError: the model asks for a window, or caps its products.
    """
    if asked := [name for name in _REFUSED if options.get(name) is not None]:
        raise InputError(
            f"sequence.packing: shared: this model's attention has {asked[0]}, which shared rows "
            "do not know. Use packing: grouped."
        )
    groups = query.shape[1] // key.shape[1]
    if groups > 1:
        key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    if seen is None:
        made = scaled_dot_product_attention(
            query, key, value, dropout_p=dropout, scale=scaling, is_causal=True
        )
        return made.transpose(1, 2), None
    out = []
    for own, before, mask in seen.parts:
        ranges = [*before, own]
        made = scaled_dot_product_attention(
            query[:, :, own],
            torch.cat([key[:, :, each] for each in ranges], 2),
            torch.cat([value[:, :, each] for each in ranges], 2),
            attn_mask=None if mask is None else mask.to(query.device),
            dropout_p=dropout,
            scale=scaling,
            is_causal=mask is None,
        )
        out.append(made)
    return torch.cat(out, 2).transpose(1, 2), None


def no_mask(*_args: Any, local_size: int | None = None, **_options: Any) -> None:
    """None, as transformers asks for a mask.

    Some windows come as a mask alone and never reach `attention`: the chunks of Llama 4.

    Args:
        local_size: how far a token sees; None is all the way.

    Raises:
        InputError: the model asks for a window.
    """
    if local_size is not None:
        raise InputError(
            f"sequence.packing: shared: this model's attention sees {local_size} tokens at a time, "
            "which shared rows do not know. Use packing: grouped."
        )


AttentionInterface.register(NAME, attention)
AttentionMaskInterface.register(NAME, no_mask)
