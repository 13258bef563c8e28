"""Another chat template than the model's own, and what a template may be told.

Knows only sources: a template is run, in its sandbox, by `rendering`.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from ringfence.engines.descriptions import Description
from ringfence.errors import InputError

Value = str | int | float | bool | None
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,63}")
# What rendering itself tells a template.
_TAKEN = frozenset(
    "messages tools documents add_generation_prompt bos_token eos_token loop namespace "
    "raise_exception strftime_now".split()
)
_WORDS = {True: "true", False: "false", None: "none"}


def with_template(
    description: Description, file: str | Path | None, options: Mapping[str, Value] | None
) -> Description:
    """The description with the template of a file, and with what templates may be told set.

    Options become assignments in front of the template, so that every run of it sees them: such as
    `enable_thinking` of Qwen 3, or a fixed `date_string` of Llama 3.

    Raises:
        InputError: no such file, no template to tell anything, or an option that cannot be one.
    """
    source = description.template
    if file is not None:
        try:
            source = Path(os.path.expanduser(file)).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"chat_template: {file} cannot be read: {error}") from None
    if options:
        if source is None:
            raise InputError(
                f"template_options: {description.name} has no chat template; give one with "
                "chat_template"
            )
        # The line end is no part of the prompt: chat templates are run with trim_blocks.
        source = "".join(f"{_assignment(*option)}\n" for option in options.items()) + source
    return replace(description, template=source)


def _assignment(name: str, value: Value) -> str:
    where = f"template_options.{name}"
    if not _NAME.fullmatch(name) or name in _TAKEN:
        raise InputError(f"{where}: this name cannot be given to a chat template")
    if isinstance(value, bool) or value is None:
        return f"{{% set {name} = {_WORDS[value]} %}}"
    if not isinstance(value, str | int | float):
        raise InputError(f"{where}: must be text, a number, true, false or null")
    try:
        written = json.dumps(value, allow_nan=False, ensure_ascii=False)
        str(value).encode()
    except ValueError as error:
        raise InputError(f"{where}: {error}") from None
    # JSON's escapes are Jinja's; escaping the rest keeps delimiters of templates out.
    literal = re.sub(r"[{}%#]", lambda sign: f"\\u{ord(sign[0]):04x}", written)
    return f"{{% set {name} = {literal} %}}"
