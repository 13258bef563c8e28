"""A tiny chat model and small data sets for the tests of training."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from random import Random
from typing import Any

from ringfence.engine import EngineCard
from ringfence.rings import Policy
from ringfence.synthesis.run import Job as Synthesis
from ringfence.synthesis.run import synthesize
from ringfence.synthesis.writing import Folder
from ringfence.vocabulary import Vocabulary

TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
# One token a byte: 256 bytes, then the three of ChatML.
SIZE = 259


def card(length: int = 4096) -> EngineCard:
    """What rendering needs of the tiny model."""
    vocabulary = Vocabulary.characters()
    return EngineCard(
        name="tiny",
        tokenizer=vocabulary,
        template=TEMPLATE,
        bos="<|im_start|>",
        eos="<|im_end|>",
        ends=frozenset({257, 258}),
        context=length,
        slots=1,
    )


def tiny_model(folder: Path, kind: str = "Llama", **settings: Any) -> Path:
    """A random model of two blocks over bytes, with tokenizer and chat template."""
    import tokenizers
    import torch
    import transformers
    from tokenizers import AddedToken, decoders, models, pre_tokenizers

    folder.mkdir(parents=True, exist_ok=True)
    pieces = Vocabulary.characters()._encoder.get_vocab()
    tokenizer = tokenizers.Tokenizer(models.BPE(vocab=pieces, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    control = ("<|im_start|>", "<|im_end|>", "<|endoftext|>")
    tokenizer.add_special_tokens([AddedToken(text, special=True) for text in control])
    tokenizer.save(str(folder / "tokenizer.json"))
    words = {"bos_token": control[0], "eos_token": control[1], "pad_token": control[1]}
    (folder / "tokenizer_config.json").write_text(
        json.dumps({**words, "chat_template": TEMPLATE, "tokenizer_class": "TokenizersBackend"})
    )
    config = getattr(transformers, f"{kind}Config")(
        **{
            "vocab_size": SIZE,
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 1024,
            "bos_token_id": 256,
            "eos_token_id": 257,
            "pad_token_id": 257,
            "tie_word_embeddings": True,
        }
        | settings
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        transformers.AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    return folder


def conversation(number: int, **more: Any) -> dict[str, Any]:
    """A line of supervised data; lengths differ."""
    rng = Random(number)
    return {
        "messages": [
            {"role": "system", "content": "Answer in capitals."},
            {"role": "user", "content": "say " + " ".join("abcdefgh"[: rng.randint(1, 8)])},
            {"role": "assistant", "content": "SO BE IT " * rng.randint(1, 3)},
        ],
        **more,
    }


def pair(number: int, **more: Any) -> dict[str, Any]:
    """A line of preferences."""
    line = conversation(number)
    *prompt, reply = line["messages"]
    return {
        "prompt": prompt,
        "chosen": [reply],
        "rejected": [{"role": "assistant", "content": "no " * (number % 3 + 1)}],
        **more,
    }


def write_lines(path: Path, lines: Iterable[Mapping[str, Any]]) -> Path:
    """A JSONL file."""
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    return path


def read_lines(path: Path) -> list[dict[str, Any]]:
    """What a JSONL file holds."""
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def synthesised(
    out: Path,
    *,
    split: Any = "both",
    count: int = 18,
    recipes: tuple[str, ...] = ("conflict", "over-refusal", "composition"),
) -> Path:
    """A small folder of `ringfence synthesize`."""
    job = Synthesis(
        recipes=recipes,
        count=count,
        seed=3,
        policy=Policy.preset("harmony"),
        split=split,
    )
    folder = Folder(out, job.described())
    for _ in synthesize(job, folder, folder.open()):
        pass
    return out
