"""Principles: what a judge looks for and how it asks, as data (`principles/*.yaml` or any file).

Knows nothing of engines or of how answers are weighed.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from ringfence.errors import InputError
from ringfence.yaml_files import parsed, read


class Option(BaseModel):
    """One possible answer of a judge.

    Attributes:
        label: the word that stands for it, or its text when the principle is lettered.
        value: what the answer means, in [-1, 1].
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    label: str = Field(min_length=1)
    value: float = Field(ge=-1, le=1)


class Example(BaseModel):
    """A judged example that stands before the question."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    shown: str
    answer: str


class Principle(BaseModel):
    """What a judge looks for, and how it asks. The schema of a principle file.

    Attributes:
        name: what people call it.
        summary: one sentence: what a value of 1 means.
        shows: what stands for `{shown}` in the question: `reply` (after a raw text prompt, the text
            it continues as well), `conversation` (with the reply last), or `rings` (the same with
            the ring of every message).
        form: `continuation` puts everything into one text and reads the next token; `chat` asks
            through the model's chat template, in a conversation of its own; `turn` asks in the next
            turn of the conversation that is judged, where the draft's cache is, so that it costs
            little more than the question. In this form nothing is shown: everything is seen.
        instruction: stands first (chat: as the system message), so that it stays cached.
        question: must contain `{shown}`, except in the form `turn`; a lettered principle also
            `{options}`.
        answer: the words right before the label.
        options: two or more answers.
        letters: options are listed as (A), (B), … and the letter is the label.
        swap: ask again with the options in reverse order and average; needs letters.
        votes: `soft` (the expected value under the label probabilities) or `hard` (the value of
            the most likely label).
        neutral: texts that deserve no option more than another, such as `N/A`. The label
            probabilities that they get on average (geometric mean) are divided out (contextual
            calibration, arXiv 2102.09690).
        sharpness: what the log-probabilities are multiplied by, after that: above 1 where a small
            model is right but timid. Moves values away from 0, and leaves their order and the
            sides of 0 with two options.
        threshold: drafts of at least this value are acceptable.
        examples: judged examples.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$")
    summary: str
    shows: Literal["reply", "conversation", "rings"]
    form: Literal["continuation", "chat", "turn"] = "chat"
    instruction: str = ""
    question: str
    answer: str = ""
    options: tuple[Option, ...] = Field(min_length=2, max_length=8)
    letters: bool = False
    swap: bool = False
    votes: Literal["soft", "hard"] = "soft"
    neutral: tuple[str, ...] = ()
    sharpness: float = Field(default=1.0, gt=0, le=100)
    threshold: float = Field(default=0.5, ge=-1, le=1)
    examples: tuple[Example, ...] = ()

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.form == "turn":
            self._alone()
        elif "{shown}" not in self.question:
            raise ValueError("question: must contain {shown}, where the draft is put")
        if self.letters != ("{options}" in self.question):
            raise ValueError("question: must contain {options} exactly if letters is true")
        if self.swap and not self.letters:
            raise ValueError("swap: swapping needs letters: true")
        labels = [option.label for option in self.options]
        if len(set(labels)) != len(labels):
            raise ValueError("options: two options have the same label")
        for example in self.examples:
            if example.answer not in labels:
                raise ValueError(f"examples: answer {example.answer!r} is not one of {labels}")
        return self

    def _alone(self) -> None:
        """What a question in the conversation itself has no place for."""
        if "{shown}" in self.question:
            raise ValueError("question: has no {shown} in the form turn, which sees everything")
        for name in ("instruction", "examples", "neutral"):
            if getattr(self, name):
                raise ValueError(f"{name}: has no place in the form turn; put it into question")

    @classmethod
    def load(cls, name_or_path: str) -> Principle:
        """A packaged principle by name, or any YAML file by path.

        Raises:
            InputError: no such principle, or a broken file; names file, field and the fix.
        """
        if name_or_path in packaged_principles():
            file = resources.files("ringfence") / "principles" / f"{name_or_path}.yaml"
            return parsed(cls, file.read_text("utf-8"), f"{name_or_path}.yaml")
        if not Path(name_or_path).is_file():
            raise InputError(
                f"no principle {name_or_path!r}. Packaged: {', '.join(packaged_principles())}; "
                "or give the path of a YAML file."
            )
        return read(cls, Path(name_or_path))

    def asked(self, order: Sequence[int]) -> tuple[str, str]:
        """The text before and after what is shown, with the options in the given order.

        Examples stand in the first part. In the chat form the instruction is not included.
        """
        listed = "\n".join(
            f"({letter(place)}) {self.options[index].label}" for place, index in enumerate(order)
        )
        question = self.question.replace("{options}", listed)
        before, _, after = question.partition("{shown}")
        labels = [option.label for option in self.options]
        shots = "".join(
            f"{before}{example.shown}{after}{self.answer}{' ' if self.spaced else ''}"
            f"{self._label(labels.index(example.answer), order)}\n\n"
            for example in self.examples
        )
        return shots + before, after

    @property
    def spaced(self) -> bool:
        """Whether the label follows the words before it after a space."""
        words = self.answer
        if self.form == "continuation" and not words:
            words = self.question.split("{shown}", 1)[1]
        return bool(words) and not words[-1].isspace() and words[-1] not in "([\"'"

    def fixed(self, order: Sequence[int] | None = None) -> str:
        """The text that stands first in every question of the continuation form."""
        before, _ = self.asked(order or range(len(self.options)))
        return f"{self.instruction}\n\n{before}" if self.instruction else before

    def _label(self, option: int, order: Sequence[int]) -> str:
        if self.letters:
            return letter(list(order).index(option)) + (")" if self.answer.endswith("(") else "")
        return self.options[option].label


def packaged_principles() -> list[str]:
    """Names of the principles that ship."""
    folder = resources.files("ringfence") / "principles"
    return sorted(file.name[:-5] for file in folder.iterdir() if file.name.endswith(".yaml"))


def letter(place: int) -> str:
    """A for the option at place 0, B for the next."""
    return chr(ord("A") + place)
