"""Options that all commands share, written down once. Imports nothing heavy, for `--help`.

Knows the names and the help of options; what their values mean is `ringfence.configuration`.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, Concatenate, Literal, ParamSpec, get_type_hints

import typer

from ringfence.commandline.failures import told
from ringfence.errors import InputError

P = ParamSpec("P")


@dataclass(frozen=True, slots=True, kw_only=True)
class Flags:
    """Values of the shared options; None where the user gave none, so that a file may."""

    engine: Annotated[
        str | None,
        typer.Option(
            metavar="ENGINE",
            help="embedded (default), embedded:GGUF, hf:FOLDER, hf:owner/name or http://HOST/v1#MODEL.",
        ),
    ] = None
    tokenizer: Annotated[
        str | None,
        typer.Option(
            metavar="FOLDER", help="Tokenizer files of a model behind http://, or of a GGUF file."
        ),
    ] = None
    adapter: Annotated[
        str | None,
        typer.Option(
            metavar="PATH|packaged|none",
            help="LoRA adapter: a PEFT folder, or GGUF for embedded. The packaged model talks with "
            "the packaged one.",
        ),
    ] = None
    rings_strength: Annotated[
        float | None,
        typer.Option(
            metavar="0..2", help="How much of the adapter; 0 is the base model, 1 the adapter."
        ),
    ] = None
    chat_template: Annotated[
        str | None, typer.Option(metavar="FILE", help="Another chat template than the model's.")
    ] = None
    template_option: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE", help="For the chat template: enable_thinking=false. Repeatable."
        ),
    ] = None
    principle: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME|FILE", help="What the judge looks for; serve takes several."),
    ] = None
    judge: Annotated[
        str | None,
        typer.Option(
            metavar="ENGINE[?KEY=VALUE&…]",
            help="Another model to judge with: 'embedded?adapter=PATH', http://HOST/v1#MODEL. "
            "Default: the model itself.",
        ),
    ] = None
    decoder: Annotated[
        Literal["plain", "best-of-n", "rejection", "rain", "guarded"] | None,
        typer.Option(help="How replies are made. Default: guarded with a principle, else plain."),
    ] = None
    preset: Annotated[
        Literal["paper", "code", "fast"] | None,
        typer.Option(help="Constants of the tree search. Default: fast."),
    ] = None
    seed: Annotated[int | None, typer.Option(help="Equal seeds give equal replies.")] = None
    max_tokens: Annotated[int | None, typer.Option(help="Longest reply.")] = None
    temperature: Annotated[float | None, typer.Option(help="Of plain drafts.")] = None
    exhausted: Annotated[
        Literal["refuse", "best", "error"] | None,
        typer.Option(help="When no draft was good enough within the budget. Default: refuse."),
    ] = None
    threshold: Annotated[
        float | None,
        typer.Option(help="Drafts of at least this value pass. Default: the principle's."),
    ] = None
    embedder: Annotated[
        Literal["ngrams", "minilm"] | None,
        typer.Option(help="Tells similar drafts. Default: ngrams; minilm needs the extra."),
    ] = None
    config: Annotated[
        Path | None,
        typer.Option(metavar="FILE.yaml", help="Options from a file; those given here win."),
    ] = None
    json: Annotated[
        bool, typer.Option("--json", help="Machine-readable on stdout, all else on stderr.")
    ] = False

    def given(self) -> dict[str, Any]:
        """The options the user gave, by the names they have in a file."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        for name in ("config", "json", "template_option"):
            del values[name]
        if self.template_option:
            values["template_options"] = dict(map(_template_option, self.template_option))
        return {name: value for name, value in values.items() if value is not None}


def _template_option(text: str) -> tuple[str, Any]:
    """A value that reads as JSON's true, false, null or number is that; all others are text."""
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise InputError(f"--template-option {text!r}: must be NAME=VALUE")
    try:
        read = json.loads(value)
    except ValueError:
        return name, value
    return name, value if isinstance(read, list | dict) else read


def shared(command: Callable[Concatenate[Flags, P], None]) -> Callable[..., None]:
    """Give a command the shared options, as its first argument, and errors in one line."""
    hints = get_type_hints(command, include_extras=True)
    own = list(inspect.signature(command).parameters.values())[1:]
    flag_hints = get_type_hints(Flags, include_extras=True)
    names = [field.name for field in fields(Flags)]

    def run(**values: Any) -> None:
        flags = Flags(**{name: values.pop(name) for name in names})
        with told():
            command(flags, **values)  # type: ignore[call-arg]

    keyword = inspect.Parameter.KEYWORD_ONLY
    parameters = [
        parameter.replace(kind=keyword, annotation=hints[parameter.name]) for parameter in own
    ] + [
        inspect.Parameter(
            field.name, keyword, default=field.default, annotation=flag_hints[field.name]
        )
        for field in fields(Flags)
    ]
    run.__name__, run.__doc__ = command.__name__, command.__doc__
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return run
