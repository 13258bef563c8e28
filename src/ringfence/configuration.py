"""Options from a YAML file and from the command line, checked together.

Knows what options there are and what they may be; nothing of terminals, engines or judges.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from ringfence.budget import Budget
from ringfence.errors import InputError
from ringfence.options import DecoderName, Options
from ringfence.search_settings import SearchSettings
from ringfence.yaml_files import explain, plain, text_of


class Settings(BaseModel):
    """Everything a command may be told, whichever way.

    In a file the fields of `options` stand at the top level, beside the others.

    Attributes:
        engine: as `open_engine` takes it.
        tokenizer: folder with the tokenizer of a model behind http://, or of a GGUF file.
        principle: names or paths of principles; most commands take at most one.
        judge: the model that judges, as `evaluate --model` takes one; None is the model itself.
        decoder: None takes `guarded` with a principle and `plain` without.
        policy: the order of rings of conversations, a preset or a YAML file; of `chat`, `generate`,
            `serve` and `synthesize`.
        adapter: of the model: a folder, a GGUF file, `packaged` or `none`; None is left to the
            command.
        rings_strength: scales the adapter; 0 is the base model, 1 the adapter as trained.
        chat_template: a file with another chat template than the model's own.
        template_options: variables for the chat template, such as `enable_thinking: false`.
        embedder: for the similarity update of the search.
        concurrency: replies made side by side by `generate`.
        serve: options of the server; `ringfence.server` says which there are.
        options: how a reply is made.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    engine: str = "embedded"
    tokenizer: str | None = None
    principle: tuple[str, ...] = ()
    judge: str | None = None
    decoder: DecoderName | None = None
    policy: str = "harmony"
    adapter: str | None = None
    rings_strength: float | None = Field(default=None, ge=0, le=2)
    chat_template: str | None = None
    template_options: dict[str, str | int | float | bool | None] | None = None
    embedder: Literal["ngrams", "minilm"] = "ngrams"
    concurrency: int = Field(default=4, ge=1, le=1024)
    serve: dict[str, Any] = {}
    options: Options = Options()

    @field_validator("engine", "tokenizer", "policy", "adapter", "chat_template")
    @classmethod
    def _at_home(cls, path: str | None) -> str | None:
        return path and at_home(path)

    def chosen_decoder(self) -> DecoderName:
        """The decoder asked for, or the one that fits."""
        return self.decoder or ("guarded" if self.principle else "plain")

    def one_principle(self) -> str | None:
        """The principle of a command that takes at most one.

        Raises:
            InputError: there are several.
        """
        if len(self.principle) > 1:
            raise InputError(
                f"--principle was given {len(self.principle)} times; only serve takes several"
            )
        return self.principle[0] if self.principle else None


def at_home(path: str) -> str:
    """The path or engine, unchanged, if there is a home folder for a `~` in front of it.

    Raises:
        InputError: there is none, of which `Path.expanduser` makes a RuntimeError.
    """
    found = re.match(r"(?:embedded:|hf:)?(~[^/]*)", path)
    if found and os.path.expanduser(found[1]) == found[1]:
        raise InputError(f"{path}: there is no home folder {found[1]}")
    return path


def settings_from(
    file: Path | None, given: Mapping[str, Any], defaults: Mapping[str, Any] | None = None
) -> Settings:
    """Settings of a command: its own defaults, then the file, then what was given on the line.

    Raises:
        InputError: a file that cannot be read or is no mapping; an unknown key, with near matches;
            a value that does not fit; a `~` of nobody's; a judge without a principle.
    """
    read = _read(file) if file else {}
    if file:
        _checked(read, f"{file}: ")
    merged = {**(defaults or {}), **read, **given}
    settings = _checked(merged, "")
    if settings.judge is not None and not settings.principle:
        raise InputError("judge: nothing to judge by; name a principle, too, such as rings")
    return settings


def _read(file: Path) -> dict[str, Any]:
    data = plain(text_of(file), str(file))
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise InputError(f"{file}: must be a mapping of options, such as `decoder: rain`")
    if isinstance(data.get("principle"), str):
        data["principle"] = [data["principle"]]
    return data


def _checked(values: Mapping[str, Any], where: str) -> Settings:
    own = set(Settings.model_fields) - {"options"}
    _known(values, own | set(Options.model_fields), where, "")
    _known(values.get("budget"), Budget.model_fields, where, "budget.")
    _known(values.get("search"), SearchSettings.model_fields, where, "search.")
    try:
        # The options check this section as well, but not field by field.
        SearchSettings.model_validate(values.get("search", {}))
    except ValidationError as error:
        raise InputError(f"{where}search: {explain(error)}") from None
    options = {key: value for key, value in values.items() if key in Options.model_fields}
    rest = {key: value for key, value in values.items() if key not in options}
    try:
        return Settings(**rest, options=Options.model_validate(options))
    except ValidationError as error:
        raise InputError(f"{where}{explain(error)}") from None


def _known(values: object, names: Iterable[str], where: str, section: str) -> None:
    """Refuse keys that do not exist, with what was probably meant."""
    if not isinstance(values, dict):
        return
    names = sorted(names)
    for key in values:
        if key in names:
            continue
        near = difflib.get_close_matches(str(key).replace("-", "_"), names, n=3)
        hint = f"Did you mean {' or '.join(near)}?" if near else f"Keys: {', '.join(names)}."
        raise InputError(f"{where}unknown key {section}{key}. {hint}")
