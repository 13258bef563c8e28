"""Files of plain data, checked against a schema. Knows nothing of what the data means."""

from __future__ import annotations

import difflib
from collections.abc import Hashable, Iterator
from pathlib import Path
from typing import Any, TypeVar, get_args

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


def text_of(path: Path, most: int | None = None) -> str:
    """The text of a file, without a mark of its byte order.

    Args:
        path: of the file.
        most: bytes it may have.

    Raises:
        InputError: it cannot be read, is no UTF-8 or too large.
    """
    try:
        if most is not None and path.stat().st_size > most:
            raise InputError(f"{path}: larger than {most:,} bytes")
        return path.read_text("utf-8-sig")
    except FileNotFoundError:
        raise InputError(f"{path}: there is no such file") from None
    except IsADirectoryError:
        raise InputError(f"{path}: is a folder; name a file") from None
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
        raise InputError(f"{where}: {explain(error, model)}") from None


def explain(error: ValidationError, model: type[BaseModel] | None = None) -> str:
    """What pydantic found wrong: every field with what it wants, in one line.

    Args:
        error: of pydantic.
        model: what was asked for; with it, an unknown field comes with what was probably meant.
    """
    parts = []
    for item in error.errors():
        where = ".".join(str(step) for step in item["loc"])
        message = item["msg"].removeprefix("Value error, ")
        if item["type"] == "extra_forbidden":
            message = "no such field" + (_meant(model, item["loc"]) if model else "")
        parts.append(f"{where}: {message}" if where else message)
    return "; ".join(parts)


def _meant(model: type[BaseModel], place: tuple[int | str, ...]) -> str:
    """Where a field belongs that is not known at a place, or what is there; empty if unknown."""
    *path, name = place
    models = [model]
    for step in path:
        if isinstance(step, str):
            models = [
                below
                for one in models
                if step in one.model_fields
                for below in _models(one.model_fields[step].annotation)
            ] or models
    for one in models:
        for field, info in one.model_fields.items():
            if any(str(name) in below.model_fields for below in _models(info.annotation)):
                return f"; it belongs under {field}"
    known = sorted({field for one in models for field in one.model_fields})
    near = difflib.get_close_matches(str(name).replace("-", "_"), known, n=3)
    return f". Did you mean {' or '.join(near)}?" if near else f". Fields: {', '.join(known)}."


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    """The models that stand in a type."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from _models(part)


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
