"""Files of plain data, checked against a schema. Knows nothing of what the data means."""

from __future__ import annotations

from collections.abc import Hashable
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from ringfence.errors import InputError

Model = TypeVar("Model", bound=BaseModel)


def read(model: type[Model], path: Path) -> Model:
    """A YAML file as a model.

    Raises:
        InputError: a file that cannot be read or is broken; names file, field and the fix.
    """
    return parsed(model, text_of(path), str(path))


def text_of(path: Path) -> str:
    """The text of a file.

    Raises:
        InputError: it cannot be read, or is no UTF-8.
    """
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as UTF-8 text: {error}") from error


def plain(source: str, where: str) -> Any:
    """YAML text as plain data; `where` names it in errors.

    Raises:
        InputError: broken YAML, or one with a field twice.
    """
    try:
        loader = _Plain(source)
        loader.name = where
        return loader.get_single_data()
    # A date or a number that is none is a ValueError, and lists in lists in lists are too deep.
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise InputError(f"{where}: not valid YAML: {error}") from error
    # What PyYAML makes of a value that is not of the kind its tag says.
    except (LookupError, AttributeError, TypeError) as error:
        raise InputError(
            f"{where}: not valid YAML: a value does not fit the tag before it, such as !!bool"
        ) from error


def parsed(model: type[Model], source: str, where: str) -> Model:
    """YAML text as a model; `where` names it in errors.

    Raises:
        InputError: broken YAML, or data that the model does not take.
    """
    data = plain(source, where)
    if not isinstance(data, dict):
        fields = ", ".join(list(model.model_fields)[:3])
        raise InputError(f"{where}: must be a mapping of fields such as {fields}")
    try:
        return model.model_validate(data)
    except ValidationError as error:
        raise InputError(f"{where}: {explain(error)}") from None


def explain(error: ValidationError) -> str:
    """What pydantic found wrong: every field with what it wants, in one line."""
    parts = []
    for item in error.errors():
        where = ".".join(str(step) for step in item["loc"])
        hint = " (no such field; check the spelling)" if item["type"] == "extra_forbidden" else ""
        message = item["msg"].removeprefix("Value error, ")
        parts.append(f"{where}: {message}{hint}" if where else message)
    return "; ".join(parts)


class _Plain(yaml.SafeLoader):
    """Plain data only, as `yaml.safe_load`, and no field twice: YAML would take the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for name, _ in node.value:
            key = self.construct_object(name, deep=True)
            if not isinstance(key, Hashable):
                continue  # refused below
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"{key!r} stands here twice", name.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep)
