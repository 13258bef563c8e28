"""The default embedder: unit vectors, alike for alike texts, the same in every process."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ringfence.embedding import HashedNgrams

embedder = HashedNgrams()


@given(st.lists(st.text(max_size=40), max_size=4))
def test_vectors_have_unit_norm_or_none_for_blank_text(texts):
    vectors = embedder.embed(texts)
    assert vectors.shape == (len(texts), 384)
    assert vectors.dtype == np.float32
    for text, vector in zip(texts, vectors, strict=True):
        assert np.linalg.norm(vector) == pytest.approx(1 if text.strip() else 0, abs=1e-5)


@given(st.text(min_size=1, max_size=60), st.lists(st.text(), max_size=3))
def test_a_text_has_one_vector_whatever_stands_beside_it(text, others):
    one, two = embedder.embed([text])[0], embedder.embed([*others, text])[-1]
    assert np.array_equal(one, two)
    if text.strip():
        assert float(one @ two) == pytest.approx(1, abs=1e-5)


def test_no_texts_give_no_vectors():
    assert embedder.embed([]).shape == (0, 384)


def test_case_and_spaces_do_not_count():
    one, two = embedder.embed(["A good  film.", "a good film ."])
    assert float(one @ two) == pytest.approx(1, abs=1e-5)


def test_what_says_the_same_is_similar_and_what_does_not_is_not():
    texts = [
        "I really enjoyed this film a lot.",
        "I really enjoyed this film a lot",
        "The plumber came on Tuesday with pipes.",
    ]
    same, near, far = embedder.embed(texts)
    assert float(same @ near) >= embedder.similar > float(same @ far)


def test_lone_surrogates_and_nul_are_text():
    assert np.isfinite(embedder.embed(["\ud800", "\0", "a\udfffb"])).all()


def test_vectors_are_the_same_in_every_process():
    program = (
        "from ringfence.embedding import HashedNgrams; "
        "print(HashedNgrams().embed(['The film was fine, e\u0301 \U0001f600'])[0].tobytes().hex())"
    )
    printed = {
        subprocess.run(
            [sys.executable, "-c", program],
            env=os.environ | {"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(printed) == 1
