"""Which model is meant, and how it decodes: `embedded?decoder=guarded&principle=rings`.

Knows nothing of Inspect or of open engines.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, unquote

from ringfence.budget import Budget
from ringfence.configuration import Settings, settings_from
from ringfence.errors import InputError
from ringfence.options import Options
from ringfence.policy_files import load
from ringfence.rings import Policy
from ringfence.search_settings import SearchSettings

PREFIX = "ringfence/"
KINDS = ("embedded", "hf", "http", "https")
# What engines take; which takes what is theirs to say when they are opened.
_OPENING = ("threads", "slots", "cells", "context", "timeout", "device", "dtype")
_WHOLE = ("threads", "slots", "cells", "context")
# Settings that are options of engines, too.
_OF_ENGINES = ("tokenizer", "adapter", "rings_strength", "chat_template", "template_options")
_TEMPLATE = "template_options."
_OWN = ("prompt_only", "policy")
# Several answers are drawn and one is taken: greedy ones would all be the same.
_DRAWN = ("best-of-n", "rejection", "rain")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelName:
    """A model and how it is used.

    Attributes:
        settings: engine, decoder, principle and options; `named` says which of them the user gave.
        named: keys of the query, as `Settings` and `Options` have them.
        policy: of every conversation.
        prompt_only: put the paragraph of `baseline` into the system message.
        opening: options of the engine.
        judge: the model that judges; None is this one itself.
    """

    settings: Settings
    named: frozenset[str]
    policy: Policy
    prompt_only: bool
    opening: Mapping[str, Any]
    judge: ModelName | None = None

    @property
    def engine(self) -> str:
        """As `open_engine` takes it."""
        return self.settings.engine


def is_ours(model: str) -> bool:
    """Whether one of our engines is meant, with or without the prefix."""
    engine = model.removeprefix(PREFIX)
    return model.startswith(PREFIX) or engine.split("?")[0].split(":")[0] in KINDS


def full_name(model: str) -> str:
    """The name as Inspect takes it: ours with the prefix, all others unchanged."""
    return PREFIX + model if is_ours(model) and not model.startswith(PREFIX) else model


def with_options(model: str, options: Mapping[str, Any]) -> str:
    """The name with more options in its query; values are escaped.

    Raises:
        InputError: the name gives one of them already.
    """
    if not options:
        return model
    engine, query = split(model)
    pairs = [quote(key) + "=" + quote(value, safe=":+") for key, value in query]
    for key, value in options.items():
        if any(_key(there) == _key(key) for there, _ in query):
            raise InputError(f"model {model}: gives {key} already; leave out --{key}")
        for one in value if isinstance(value, list | tuple) else [value]:
            pairs.append(f"{quote(key)}={quote(str(one), safe=':+')}")
    return f"{engine}?{'&'.join(pairs)}"


def split(model: str) -> tuple[str, list[tuple[str, str]]]:
    """The engine and the pairs of the query, which is what follows the last `?`.

    Of an address both `http://HOST/v1#MODEL?key=value` and `http://HOST/v1?key=value#MODEL` are
    understood. A path with a `?` in it needs a `?` at its end.

    Raises:
        InputError: a pair without `=`.
    """
    engine, mark, query = model.rpartition("?")
    if not mark:
        return model, []
    web = engine.removeprefix(PREFIX).startswith(("http:", "https:"))
    if web and "#" in query and "#" not in engine:
        query, _, served = query.partition("#")
        engine += f"#{served}"
    pairs = []
    for part in query.split("&") if query else []:
        key, equals, value = part.partition("=")
        if not equals or not key:
            raise InputError(
                f"model {model}: {part!r} is no key=value. Options stand behind the last '?', "
                "such as ?decoder=guarded&principle=rings"
            )
        pairs.append((unquote(key), unquote(value)))
    return engine, pairs


def parse(model: str, arguments: Mapping[str, Any] | None = None) -> ModelName:
    """What a name means.

    Args:
        model: with or without the prefix.
        arguments: more options, as Inspect's `-M key=value` gives them.

    Raises:
        InputError: an unknown key, with near matches; a value that does not fit; a key given twice;
            a decoder without its principle.
    """
    engine, pairs = split(model.removeprefix(PREFIX))
    where = f"model {model}: "
    if engine.split(":")[0] not in KINDS:
        raise InputError(
            f"{where}unknown engine {engine!r}. Engines: embedded, embedded:PATH.gguf, hf:PATH, "
            "http://HOST/v1#MODEL"
        )
    given: dict[str, Any] = {}
    for name, value in [*pairs, *(arguments or {}).items()]:
        _add(given, name, value, where)
    own = {key: given.pop(key) for key in (*_OWN, *_OPENING) if key in given}
    decoder = given.get("decoder") or ("guarded" if "principle" in given else "plain")
    defaults: dict[str, Any] = {"engine": engine}
    if decoder not in _DRAWN:
        defaults["temperature"] = 0.0
    try:
        settings = settings_from(None, given, defaults)
        settings.one_principle()
        policy = load(str(own.get("policy", "harmony")))
    except InputError as error:
        raise InputError(f"{where}{error}") from None
    if settings.chosen_decoder() != "plain" and not settings.principle:
        raise InputError(
            f"{where}decoder {settings.chosen_decoder()} judges its drafts: add a principle, by "
            "--principle rings or, in the name, &principle=rings"
        )
    try:
        judge = judge_of(settings)
    except InputError as error:
        raise InputError(f"{where}{error}") from None
    opening = {key: getattr(settings, key) for key in _OF_ENGINES if key in given}
    opening |= {key: _opening(key, own[key], where) for key in _OPENING if key in own}
    return ModelName(
        settings=settings,
        named=frozenset(given),
        policy=policy,
        prompt_only=_truth(own.get("prompt_only", False), f"{where}prompt-only"),
        opening=opening,
        judge=judge,
    )


def judge_of(settings: Settings) -> ModelName | None:
    """The model that judges, if it is another than the one that replies.

    Raises:
        InputError: it has options that are not of its engine.
    """
    if settings.judge is None:
        return None
    for name, _ in split(settings.judge)[1]:
        if _key(name) not in (*_OF_ENGINES, *_OPENING) and not _key(name).startswith(_TEMPLATE):
            takes = ", ".join((*_OF_ENGINES, *_OPENING))
            raise InputError(f"judge: {name} is no option of an engine; a judge takes {takes}")
    try:
        return parse(settings.judge)
    except InputError as error:
        raise InputError(f"judge: {error}") from None


def _known() -> list[str]:
    settings = set(Settings.model_fields) - {"engine", "serve", "concurrency", "options"}
    settings -= {"template_options"}
    options = set(Options.model_fields) - {"budget", "search"}
    dotted = {f"budget.{name}" for name in Budget.model_fields}
    dotted |= {f"search.{name}" for name in SearchSettings.model_fields}
    return sorted(settings | options | dotted | set(_OWN) | set(_OPENING))


def _key(name: str) -> str:
    return name.replace("-", "_")


def _add(given: dict[str, Any], name: str, value: Any, where: str) -> None:
    key = _key(name)
    if key.startswith(_TEMPLATE):  # any name, as the model's template has it
        options = given.setdefault("template_options", {})
        options[name[len(_TEMPLATE) :]] = _read(value)
        return
    if key not in (known := _known()):
        near = difflib.get_close_matches(key, known, n=3)
        plain = [one for one in known if "." not in one]
        hint = f"Did you mean {' or '.join(near)}?" if near else f"Keys: {', '.join(plain)}."
        raise InputError(f"{where}unknown key {name}. {hint}")
    section, dot, field = key.partition(".")
    if dot:
        given, key = given.setdefault(section, {}), field
    if key in ("principle", "stop"):  # may come several times
        more = list(value) if isinstance(value, list | tuple) else [value]
        given[key] = [*given.get(key, []), *more]
    elif key in given:
        raise InputError(f"{where}{name} is given twice")
    else:
        given[key] = value


def _read(value: Any) -> Any:
    """Text that reads as JSON's true, false, null or number is that."""
    try:
        return json.loads(value) if isinstance(value, str) else value
    except ValueError:
        return value


def _opening(key: str, value: Any, where: str) -> Any:
    if key in _WHOLE or key == "timeout":
        try:
            number = float(value) if key == "timeout" else int(str(value))
        except ValueError:
            number = 0
        if number <= 0:
            raise InputError(f"{where}{key}: must be a number above 0, not {value!r}")
        return number
    return str(value)


def _truth(value: Any, where: str) -> bool:
    if str(value).casefold() in ("true", "yes", "1"):
        return True
    if str(value).casefold() in ("false", "no", "0"):
        return False
    raise InputError(f"{where}: must be true or false, not {value!r}")
