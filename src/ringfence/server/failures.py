"""What is told when a request fails: OpenAI's error object to the client, and to the log the place.

Knows nothing of what a request may ask for.
"""

from __future__ import annotations

import json
import logging
import traceback
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError
from starlette.responses import Response

from ringfence.errors import (
    BudgetError,
    ContextError,
    EngineError,
    InputError,
    JudgeError,
    RingfenceError,
)

logger = logging.getLogger("ringfence.server")

# Errors of one request that are told; a body of 10,000 broken messages has 10,000.
_TOLD = 5
# Errors quote the request, and a request may be long.
_LONGEST, _LONGEST_NAME = 1000, 200


class ErrorDetail(BaseModel):
    """What is wrong. `param` names the field of the request, where there is one."""

    model_config = ConfigDict(extra="forbid")

    message: str
    type: str
    param: str | None
    code: str


class ErrorBody(BaseModel):
    """The body of every reply that is not a success."""

    model_config = ConfigDict(extra="forbid")

    error: ErrorDetail


class Failure(Exception):
    """A request that fails, and how the client is told."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """The type of the error follows from the status."""
        super().__init__(message)
        self.status = status
        self.headers = dict(headers or {})
        self.detail = ErrorDetail(
            message=_clipped(message, _LONGEST),
            type=_type(status),
            param=None if param is None else _clipped(param, _LONGEST_NAME),
            code=code,
        )

    def body(self) -> dict[str, Any]:
        """The error object."""
        return ErrorBody(error=self.detail).model_dump()

    def response(self) -> Response:
        """As a reply of its own."""
        return JSON(self.body(), status_code=self.status, headers=self.headers)


def invalid(message: str, param: str | None, code: str = "invalid_value") -> Failure:
    """A request that asks for something it cannot have."""
    return Failure(400, message, code=code, param=param)


class JSON(Response):
    """JSON that can hold any text: a lone surrogate in a field name must not break the answer."""

    media_type = "application/json"

    def render(self, content: object) -> bytes:
        """Encode; what is not Unicode becomes a question mark."""
        return encoded(content).encode("utf-8", "replace")


def encoded(content: object) -> str:
    """Compact JSON on one line."""
    return json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def _clipped(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"


def _type(status: int) -> str:
    special = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
    if status in special:
        return special[status]
    return "server_error" if status >= 500 else "invalid_request_error"


def failure_of(error: BaseException) -> Failure:
    """How the client is told about an error.

    What nobody foresaw tells nothing about itself, nor do engines and judges: their errors name
    hosts and quote other servers.
    """
    if isinstance(error, Failure):
        return error
    if isinstance(error, ContextError):
        return invalid("prompt and reply exceed the context", None, "context_length_exceeded")
    if isinstance(error, InputError):
        return invalid(str(error), None)
    if isinstance(error, EngineError):
        message = "the engine cannot answer; the server's log says why"
        return Failure(503, message, code="engine_error", headers={"Retry-After": "1"})
    if isinstance(error, BudgetError):
        return Failure(422, str(error), code="budget_exhausted")
    if isinstance(error, JudgeError):
        message = "the judge cannot answer; the server's log says why"
        return Failure(503, message, code="judge_error")
    if isinstance(error, RingfenceError):
        return Failure(500, str(error), code="internal_error")
    return Failure(500, "the server failed; its log says where", code="internal_error")


def log_failure(error: BaseException) -> None:
    """Where it happened; of engines and judges also what they say.

    Other messages are left out: they may quote what the client sent.
    """
    frames = traceback.extract_tb(error.__traceback__)
    places = "".join(f"\n  {frame.filename}:{frame.lineno} in {frame.name}" for frame in frames)
    said = ""
    if isinstance(error, EngineError | JudgeError):
        # Quoted, since what another server says could move the cursor or pose as another line.
        said = f": {_clipped(str(error), _LONGEST)!r}"
    logger.error("%s%s%s", type(error).__name__, said, places)


def of_body(errors: Sequence[Mapping[str, Any]]) -> Failure:
    """What pydantic found wrong with a request body."""
    if not errors:
        return invalid("the body is not valid", None)
    first = errors[0]
    if first["type"] == "json_invalid":
        return invalid(f"the body is not valid JSON: {first['ctx']['error']}", None, "invalid_json")
    if first["type"] == "model_attributes_type":
        return invalid(
            "the body must be a JSON object, sent with Content-Type: application/json", None
        )
    told = list(dict.fromkeys(_sentence(error) for error in errors))
    more = f"; and {len(told) - _TOLD} more" if len(told) > _TOLD else ""
    code = "unknown_parameter" if first["type"] == "extra_forbidden" else "invalid_value"
    return invalid("; ".join(told[:_TOLD]) + more, _param(first), code)


def of_options(error: ValidationError, names: Mapping[str, str], prefix: str) -> Failure:
    """What an options model found wrong; `names` says what clients call some of its fields.

    The others have the prefix, such as `ringfence.`.
    """
    first = error.errors()[0]
    field, *rest = first["loc"] or ("",)
    name = names.get(str(field), f"{prefix}{field}")
    param = path_of([name, *rest])
    return invalid(f"{param}: {_message(first)}", param)


def _sentence(error: Mapping[str, Any]) -> str:
    param = _param(error)
    return f"{param}: {_message(error)}" if param else _message(error)


def _message(error: Mapping[str, Any]) -> str:
    if error["type"] == "extra_forbidden":
        return "no such field; check the spelling, or leave it out"
    return str(error["msg"]).removeprefix("Value error, ")


def _param(error: Mapping[str, Any]) -> str | None:
    """The field in the client's words: `messages[3].content`, without the branch of a union."""
    return path_of(error["loc"][1:]) or None


def path_of(steps: Iterable[str | int]) -> str:
    """Steps into JSON as one path."""
    path = ""
    for step in steps:
        if isinstance(step, int):
            path += f"[{step}]"
        elif step not in _BRANCHES and "[" not in step:
            path += f".{step}" if path else step
    return path


# How pydantic names the branches of the unions in our schemas.
_BRANCHES = frozenset({"str", "int", "float", "bool"})
