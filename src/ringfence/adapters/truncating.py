"""A smaller adapter: each update by its largest singular values. Knows no file."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ringfence.adapters.folder import LoraAdapter, Update


def truncated(adapter: LoraAdapter, rank: int) -> tuple[LoraAdapter, float]:
    """The adapter with updates of at most this rank, and what of it is left.

    No update of that rank is nearer to the one it replaces (Eckart and Young); what the model does
    with it has to be measured. Updates of a smaller rank stay as they are.

    Returns:
        The adapter; the share of the sum of squares of all updates that is kept, in (0, 1].
    """
    updates, kept, whole = {}, 0.0, 0.0
    for name, update in adapter.updates.items():
        # Of the product of two thin matrices only the small one between their bases is decomposed.
        outer, left = np.linalg.qr(update.b.astype(np.float64))
        inner, right = np.linalg.qr(update.a.astype(np.float64).T)
        u, values, v = np.linalg.svd(left @ right.T)
        squares = (update.scale * values) ** 2
        whole += float(squares.sum())
        kept += float(squares[:rank].sum())
        if update.rank > rank:
            roots = np.sqrt(values[:rank])
            a = (roots[:, None] * v[:rank]) @ inner.T
            b = (outer @ u[:, :rank]) * roots
            update = Update(a=a.astype(np.float32), b=b.astype(np.float32), scale=update.scale)
        updates[name] = update
    return replace(adapter, updates=updates), kept / whole if whole else 1.0
