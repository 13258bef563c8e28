"""Reads the header of a GGUF file. Knows nothing of tokenizers, and of tensors only their names.

The `gguf` package's GGUFReader takes 3 s for SmolLM2's header, since it makes a numpy view of each
of its 100,000 strings; this takes a fifth of a second. Nothing in the file is trusted: every length
is checked against the file's size before it is used.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from ringfence.errors import EngineError

_SCALARS = {
    0: struct.Struct("<B"),
    1: struct.Struct("<b"),
    2: struct.Struct("<H"),
    3: struct.Struct("<h"),
    4: struct.Struct("<I"),
    5: struct.Struct("<i"),
    6: struct.Struct("<f"),
    7: struct.Struct("<?"),
    10: struct.Struct("<Q"),
    11: struct.Struct("<q"),
    12: struct.Struct("<d"),
}
_STRING, _ARRAY = 8, 9
_LENGTH = _SCALARS[10]
_MOST_KEYS = 100_000
_MOST_DIMENSIONS = 4
_T = TypeVar("_T")


def read_metadata(path: str | Path) -> dict[str, Any]:
    """The metadata of a GGUF file (version 2 or 3, little endian): key → value.

    Values are int, float, bool, str or lists of one of these. Text that is no UTF-8 has its broken
    bytes replaced by U+FFFD.

    Raises:
        EngineError: the file is missing, is no GGUF file, or is truncated or broken.
    """
    return _found(path, _Header.read)


def read_tensor_names(path: str | Path) -> list[str]:
    """The names of a GGUF file's tensors.

    Raises:
        EngineError: as of `read_metadata`.
    """
    return _found(path, _Header.tensors)


def _found(path: str | Path, of: Callable[[_Header], _T]) -> _T:
    try:
        with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return of(_Header(data))
    except OSError as error:
        raise EngineError(f"{path} cannot be read: {error.strerror or error}") from error
    except ValueError as error:  # mmap of an empty file, and everything that _Header finds
        raise EngineError(f"{path} is not a usable GGUF file: {error}") from error


class _Header:
    """A cursor over the bytes of a header; every read is checked and raises ValueError."""

    def __init__(self, data: mmap.mmap) -> None:
        self._data = data
        self._at = 0
        self._end = len(data)

    def read(self) -> dict[str, Any]:
        if self._bytes(4) != b"GGUF":
            raise ValueError("it does not begin with 'GGUF'")
        version = self._scalar(_SCALARS[4])
        if version not in (2, 3):
            raise ValueError(f"version {version} is not supported, 2 and 3 are")
        self._tensors = self._scalar(_LENGTH)
        count = self._scalar(_LENGTH)
        if count > _MOST_KEYS:
            raise ValueError(f"it claims {count} metadata keys")
        metadata = {}
        for _ in range(count):
            key = self._string()
            metadata[key] = self._value(self._scalar(_SCALARS[4]), key)
        return metadata

    def tensors(self) -> list[str]:
        """The names of the tensors, which are described behind the keys."""
        self.read()
        names = []
        for _ in range(self._tensors):
            names.append(self._string())
            dimensions = self._scalar(_SCALARS[4])
            if dimensions > _MOST_DIMENSIONS:
                raise ValueError(f"{names[-1]!r} claims {dimensions} dimensions")
            # Sizes, type and offset.
            self._bytes(dimensions * _LENGTH.size + _SCALARS[4].size + _LENGTH.size)
        return names

    def _bytes(self, length: int) -> bytes:
        start, end = self._at, self._at + length
        if end > self._end:
            raise ValueError(
                f"it ends at byte {self._end}, {end} are needed; the download may be incomplete"
            )
        self._at = end
        return self._data[start:end]

    def _scalar(self, layout: struct.Struct) -> Any:
        return layout.unpack(self._bytes(layout.size))[0]

    def _string(self) -> str:
        return self._bytes(self._scalar(_LENGTH)).decode("utf-8", "replace")

    def _value(self, type_: int, key: str) -> Any:
        if type_ == _STRING:
            return self._string()
        if type_ == _ARRAY:
            return self._array(key)
        if type_ not in _SCALARS:
            raise ValueError(f"{key!r} has the unknown type {type_}")
        return self._scalar(_SCALARS[type_])

    def _array(self, key: str) -> list[Any]:
        type_, count = self._scalar(_SCALARS[4]), self._scalar(_LENGTH)
        if type_ == _STRING:
            smallest = _LENGTH.size
        elif type_ in _SCALARS:
            smallest = _SCALARS[type_].size
        else:
            raise ValueError(f"{key!r} is an array of the unsupported type {type_}")
        # Before allocating anything: a hostile count would otherwise exhaust the memory.
        if count * smallest > self._end - self._at:
            raise ValueError(f"{key!r} claims {count} entries, more than the file holds")
        if type_ == _STRING:
            return [self._string() for _ in range(count)]
        layout = struct.Struct(f"<{count}{_SCALARS[type_].format[1:]}")
        return list(layout.unpack(self._bytes(layout.size)))
