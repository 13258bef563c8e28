"""Chat templates of real models for tests, and a vocabulary that knows their special texts."""

from __future__ import annotations

import re
from pathlib import Path

from ringfence.engine import EngineCard
from ringfence.rendering import Rendering
from ringfence.rings import Conversation
from ringfence.vocabulary import Vocabulary

FOLDER = Path(__file__).parent / "golden" / "templates"
NAMES = sorted(file.stem for file in FOLDER.glob("*.jinja"))
BASES = [name for name in NAMES if not name.endswith("_training")]
SPECIAL = re.compile(r"<[|｜/]?[A-Za-z_▁0-9]+[|｜]?>|\[gMASK\]")
ENDS = ("<|return|>", "<|call|>", "<|im_end|>", "<end_of_turn>", "<|eot_id|>", "</s>")
# Two made for tests: roles as headers, whatever they are; and alternation of Mistral's kind.
CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content']"
    " + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
INST = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if (message.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('roles must alternate') }}{% endif %}"
    "{% if message.role == 'user' %}{{ '[INST] ' + message.content + ' [/INST]' }}"
    "{% elif message.role == 'assistant' %}{{ ' ' + message.content | trim + eos_token }}"
    "{% else %}{{ raise_exception('only user and assistant') }}{% endif %}{% endfor %}"
)


def source(name: str) -> str:
    own = {"chatml": CHATML, "inst": INST}
    return own.get(name) or (FOLDER / f"{name}.jinja").read_text("utf-8")


def card(name: str) -> EngineCard:
    """A vocabulary of bytes and of every special text that stands in the template."""
    text = source(name)
    extra = ("[INST]", "[/INST]") if name == "inst" else ()
    special = sorted({*SPECIAL.findall(text), *extra, "<s>", "</s>", "<think>", "</think>"})
    vocabulary = Vocabulary.characters(special)
    return EngineCard(
        name=name,
        tokenizer=vocabulary,
        template=text,
        ends=frozenset(vocabulary.control[end] for end in ENDS if end in vocabulary.control),
        context=1_000_000,
        slots=1,
        bos="<s>",
        eos="</s>",
    )


def talk(*messages: object, tools: object = None) -> Conversation:
    """Messages as (role, text), or as a chat API has them."""
    return Conversation.of(
        [m if isinstance(m, dict) else {"role": m[0], "content": m[1]} for m in messages],
        tools=tools,
    )


def controls(rendering: Rendering) -> list[int]:
    return [token for token in rendering.tokens if token >= 256]


def spoken(rendering: Rendering, message: int | None, shown: EngineCard) -> str:
    """What one writer's tokens say."""
    return "".join(
        shown.tokenizer.decode(rendering.tokens[span.start : span.stop])
        for span in rendering.spans
        if span.message == message and span.ring >= 0
    )


def replies(rendering: Rendering, shown: EngineCard) -> list[str]:
    return [
        shown.tokenizer.decode(rendering.tokens[reply.start : reply.stop])
        for reply in rendering.replies
    ]
