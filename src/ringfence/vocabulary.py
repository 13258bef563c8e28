"""Text to tokens and back for one model. Knows nothing of roles, templates, engines or torch.

One promise matters more than the others here: no text, whoever wrote it, becomes a control token.
Control tokens are not filtered out of the result, they are absent from the encoder: neither its
added tokens nor its model know them, so there is no input that could name one.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import AddedToken, Regex, models, pre_tokenizers

from ringfence import engine
from ringfence.errors import EngineError
from ringfence.tokenizer_json import merges_within, read_folder

REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
_SURROGATE = re.compile("[\ud800-\udfff]")
_BYTE = re.compile("<0x[0-9A-F]{2}>")  # how SentencePiece writes a token of one byte
CHATML = ("<|im_start|>", "<|im_end|>", "<|endoftext|>")

_GPT2_WORDS = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_LLAMA3_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|"
    r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)

# How `tokenizer.ggml.pre` splits text before merging: regular expressions, applied in this order.
# A name that is missing here is an error and not a guess, since a wrong split gives tokens that
# decode to the right text and that the model was never trained on.
_SPLITS: dict[str, tuple[str, ...]] = {
    "smollm": (r"\p{N}", _GPT2_WORDS),
    "gpt-2": (_GPT2_WORDS,),
    "llama-bpe": (_LLAMA3_WORDS,),
    "qwen2": (_LLAMA3_WORDS.replace(r"\p{N}{1,3}", r"\p{N}"),),
    "default": (
        r"[\p{P}\$\+<=>\^~\|]+",
        _GPT2_WORDS,
        r"\p{N}+",
        "[0-9][0-9][0-9]",
    ),
}

# llama.cpp's token types: 3 is special, 4 is added but not special, 5 is never used.
_CONTROL_TYPES = frozenset({3, 4, 5})


class Vocabulary:
    """A model's tokenizer; see `engine.Tokenizer`.

    `decode` is the concatenation of what each token stands for, so it never depends on the
    neighbours: the text of a reply is the text of its drafts, one after the other. For the same
    reason `encode` adds no leading space, even where the model's own tokenizer puts one in front
    of a whole text.

    Lone surrogates, which no model can be given, are encoded as U+FFFD. Bytes that the vocabulary
    has no token for are dropped, as by the model's own tokenizer (SmolLM2 lacks six ASCII control
    characters). Ids without a token (models often have more ids than tokens) decode to U+FFFD.
    """

    def __init__(
        self,
        encoder: tokenizers.Tokenizer,
        pieces: Mapping[int, bytes],
        control: Mapping[str, int],
        *,
        spelling: Container[int] = (),
        strips_left: frozenset[str] = frozenset(),
        strips_right: frozenset[str] = frozenset(),
        start: engine.Tokens = (),
    ) -> None:
        """Wrap an encoder that cannot produce a control token; use the `from_…` constructors.

        Args:
            encoder: knows no control token.
            pieces: the bytes of every token, control tokens included.
            control: text and id of every control token.
            spelling: ids of tokens that spell out what no other token says, such as `<0x61>`.
            strips_left: control tokens that take the white space before them away.
            strips_right: those that take it away behind them.
            start: control tokens that begin a text.
        """
        self._encoder = encoder
        self._pieces = dict(pieces)
        self._control = dict(control)
        self._spelling = spelling
        self._strips = strips_left, strips_right
        self._start = start
        self._ids: dict[bytes, int | None] = {}

    @property
    def control(self) -> Mapping[str, int]:
        """See `engine.Tokenizer.control`."""
        return self._control

    @property
    def highest(self) -> int:
        """The highest id that stands for something; -1 if none does."""
        return max(self._pieces, default=-1)

    @property
    def strips(self) -> tuple[frozenset[str], frozenset[str]]:
        """See `engine.Tokenizer.strips`."""
        return self._strips

    @property
    def start(self) -> engine.Tokens:
        """See `engine.Tokenizer.start`."""
        return self._start

    def encode(self, text: str) -> engine.Tokens:
        """See `engine.Tokenizer.encode`."""
        clean = _SURROGATE.sub(REPLACEMENT, text)
        return tuple(self._encoder.encode(clean, add_special_tokens=False).ids)

    def decode(self, tokens: Sequence[int]) -> str:
        """See `engine.Tokenizer.decode`."""
        unknown = REPLACEMENT.encode()
        pieces = self._pieces
        return b"".join(pieces.get(token, unknown) for token in tokens).decode("utf-8", "replace")

    def bytes_of(self, token: int) -> bytes | None:
        """The bytes that a token stands for, of a control token its text; None for unknown ids."""
        return self._pieces.get(token)

    def id_of(self, text: bytes) -> int | None:
        """The one token that stands for `text`; None if there is none or more than one.

        A token that spells a single byte counts only where no other token says the same.
        """
        if not self._ids:
            for id_, piece in self._pieces.items():
                if id_ not in self._spelling:
                    self._ids[piece] = None if piece in self._ids else id_
            for id_, piece in self._pieces.items():
                if id_ in self._spelling:
                    self._ids.setdefault(piece, id_)
        return self._ids.get(text)

    @classmethod
    def characters(cls, control: Sequence[str] = CHATML) -> Vocabulary:
        """A vocabulary without a model: one token a byte, its id the byte, then the control tokens.

        Args:
            control: texts of the control tokens; their ids are 256 and up, in this order.
        """
        alphabet = _byte_alphabet()
        ids = {text: 256 + index for index, text in enumerate(control)}
        vocabulary = {character: byte for byte, character in alphabet.items()}
        encoder = tokenizers.Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
        encoder.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        pieces = {byte: bytes([byte]) for byte in alphabet}
        return cls(encoder, pieces | {id_: text.encode() for text, id_ in ids.items()}, ids)

    @classmethod
    def from_gguf(cls, metadata: Mapping[str, Any]) -> Vocabulary:
        """Build the vocabulary a GGUF file describes; `metadata` as `read_metadata` gives it.

        Raises:
            EngineError: the file's tokenizer is of a kind not supported here.
        """
        tokens, types, merges, splits = _gguf_parts(metadata)
        control, spaces, vocabulary = {}, {}, {}
        for id_, (token, type_) in enumerate(zip(tokens, types, strict=True)):
            if type_ not in _CONTROL_TYPES:
                vocabulary[token] = id_
            elif type_ == 4 and token.isspace():
                spaces[token] = id_
            else:
                control[token] = id_
        try:
            model = models.BPE(
                vocab=vocabulary | spaces,
                merges=merges_within(merges, vocabulary),
                ignore_merges=metadata["tokenizer.ggml.pre"] == "llama-bpe",
            )
        except Exception as error:  # the tokenizers library raises bare Exception
            raise EngineError(f"the GGUF file's merges cannot be used: {error}") from error
        encoder = tokenizers.Tokenizer(model)
        encoder.pre_tokenizer = _split_then_bytes(splits)
        encoder.add_tokens([AddedToken(text, normalized=False) for text in spaces])
        pieces = _byte_level_pieces(vocabulary) | _plain_pieces(spaces) | _plain_pieces(control)
        return cls(encoder, pieces, control, start=_gguf_start(metadata, set(control.values())))

    @classmethod
    def from_folder(cls, folder: str | Path) -> Vocabulary:
        """Read a model folder's `tokenizer.json` and the added tokens of `tokenizer_config.json`.

        Raises:
            EngineError: the files are missing, broken, or of a kind not supported here.
        """
        source = read_folder(folder)
        try:
            encoder = tokenizers.Tokenizer.from_str(source.encoder)
        except Exception as error:  # the tokenizers library raises bare Exception
            raise EngineError(f"{folder}/tokenizer.json cannot be used: {error}") from error
        if source.byte_level:
            pieces = _byte_level_pieces(source.vocabulary) | _plain_pieces(source.spaces)
            spelling: frozenset[int] = frozenset()
        else:
            pieces = _sentencepiece_pieces({**source.vocabulary, **source.spaces})
            spelling = frozenset(
                id_ for text, id_ in source.vocabulary.items() if _BYTE.fullmatch(text)
            )
        return cls(
            encoder,
            pieces | _plain_pieces(source.control),
            source.control,
            spelling=spelling,
            strips_left=source.strips_left,
            strips_right=source.strips_right,
            start=source.start,
        )


class TextStream:
    """Detokenises a reply that arrives in parts. A character is given out once it is complete.

    The concatenation of everything given out equals `decode` of all tokens.
    """

    def __init__(self, tokenizer: engine.Tokenizer) -> None:
        """Start an empty stream."""
        self._tokenizer = tokenizer
        self._held: list[int] = []

    def push(self, tokens: Iterable[int]) -> str:
        """Add tokens; returns the text that no later token can change."""
        self._held.extend(tokens)
        text = self._tokenizer.decode(self._held)
        cut = self._stable(text)
        stable = self._tokenizer.decode(self._held[:cut])
        del self._held[:cut]
        return stable

    def flush(self) -> str:
        """End the stream; returns what was held back, an incomplete character as U+FFFD."""
        text = self._tokenizer.decode(self._held)
        self._held.clear()
        return text

    def _stable(self, text: str) -> int:
        """How many of the held tokens are settled, given the text of all of them."""
        if not text.endswith(REPLACEMENT):
            return len(self._held)
        # The text ends in a broken character, which a later token may complete. It is split
        # where the parts alone decode to the same text: inside it they would not.
        for cut in range(len(self._held) - 1, 0, -1):
            tail = self._tokenizer.decode(self._held[cut:])
            if tail and self._tokenizer.decode(self._held[:cut]) + tail == text:
                return cut
        return 0


def _byte_alphabet() -> dict[int, str]:
    """GPT-2's printable stand-in for every byte."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {byte: chr(byte) for byte in printable} | {
        byte: chr(256 + index) for index, byte in enumerate(others)
    }


def _byte_level_pieces(vocabulary: Mapping[str, int]) -> dict[int, bytes]:
    byte_of = {ord(character): byte for byte, character in _byte_alphabet().items()}
    latin = {code: chr(byte) for code, byte in byte_of.items()}
    pieces = {}
    for token, id_ in vocabulary.items():
        try:
            pieces[id_] = token.translate(latin).encode("latin-1")
        except UnicodeEncodeError:  # a token outside the alphabet stands for itself
            pieces[id_] = token.encode()
    return pieces


def _sentencepiece_pieces(vocabulary: Mapping[str, int]) -> dict[int, bytes]:
    def piece(token: str) -> bytes:
        if _BYTE.fullmatch(token):
            return bytes([int(token[3:5], 16)])
        return token.replace("▁", " ").encode()

    return {id_: piece(token) for token, id_ in vocabulary.items()}


def _plain_pieces(tokens: Mapping[str, int]) -> dict[int, bytes]:
    return {id_: text.encode() for text, id_ in tokens.items()}


def _split_then_bytes(splits: Iterable[str]) -> pre_tokenizers.PreTokenizer:
    steps: list[pre_tokenizers.PreTokenizer] = [
        pre_tokenizers.Split(Regex(pattern), "isolated") for pattern in splits
    ]
    return pre_tokenizers.Sequence(
        [*steps, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )


def _gguf_start(metadata: Mapping[str, Any], control: Container[int]) -> engine.Tokens:
    """The beginning of a text, where the file wants one or, as to llama.cpp, its kind does."""
    wanted = metadata.get("tokenizer.ggml.add_bos_token")
    if wanted is None:
        wanted = metadata.get("tokenizer.ggml.pre") == "llama-bpe"
    bos = metadata.get("tokenizer.ggml.bos_token_id")
    return (bos,) if wanted and isinstance(bos, int) and bos in control else ()


def _gguf_parts(
    metadata: Mapping[str, Any],
) -> tuple[list[str], list[int], list[str], tuple[str, ...]]:
    """Tokens, their types, merges and splitting patterns, or an error that says the way out."""
    way_out = "Pass tokenizer=FOLDER with the model's tokenizer.json."
    model, pre = (metadata.get(f"tokenizer.ggml.{key}") for key in ("model", "pre"))
    if model != "gpt2":
        raise EngineError(
            f"the GGUF file's tokenizer is of the kind {model!r}; only byte-level BPE ('gpt2') "
            f"is read from GGUF. {way_out}"
        )
    if not isinstance(pre, str) or pre not in _SPLITS:
        raise EngineError(
            f"the GGUF file splits text by {pre!r}; known are {', '.join(sorted(_SPLITS))}. "
            f"{way_out}"
        )
    parts = [metadata.get(f"tokenizer.ggml.{key}") for key in ("tokens", "token_type", "merges")]
    tokens, types, merges = (part if isinstance(part, list) else [] for part in parts)
    if not tokens or len(tokens) != len(types) or not all(isinstance(t, str) for t in tokens):
        raise EngineError(f"the GGUF file's token list is missing or broken. {way_out}")
    return tokens, types, merges, _SPLITS[pre]
