"""JSON over HTTP to one server: keys, time-outs, retries, errors in words. Knows no completions."""

from __future__ import annotations

import asyncio
import os
import random
import re
from collections.abc import Callable
from typing import Any

import httpx

from ringfence.errors import ContextError, EngineError

_TRANSIENT = frozenset({408, 425, 429, 500, 502, 503, 504, 529})
_LONGEST_WAIT = 60.0


class ConnectionLostError(EngineError):
    """The server cannot be reached, or hung up before it answered."""


# How servers say that a prompt is too long; "context deadline exceeded" says something else.
_TOO_LONG = re.compile(r"context[ _-]?(length|size|window)|maximum context|n_ctx", re.IGNORECASE)


class Connection:
    """A server's base URL, and how patient to be with it.

    Requests are repeated when the server is overloaded (429), fails (5xx) or hangs up, after
    `backoff`, twice and four times `backoff` seconds and so on, each scaled by a random factor
    between 0.5 and 1.5 so that many clients do not come back at the same moment. A Retry-After
    header is honoured up to a minute. A server that is too slow is not asked again: it would only
    get slower.
    """

    def __init__(
        self,
        base_url: str,
        *,
        key: str | None = None,
        timeout: float = 600.0,
        attempts: int = 4,
        backoff: float = 0.5,
        direct: bool = False,
        alive: Callable[[], bool] = lambda: True,
        rng: random.Random | None = None,
    ) -> None:
        """Prepare a connection; nothing is sent yet.

        Args:
            base_url: usually ends in `/v1`.
            key: bearer token; None takes RINGFENCE_API_KEY, then OPENAI_API_KEY.
            timeout: seconds without a byte from the server before giving up.
            attempts: how often to send a request at most.
            backoff: seconds before the first repetition.
            direct: ignore proxies and keys that the environment names.
            alive: asked before a repetition; False gives up at once.
            rng: draws the jitter.

        Raises:
            EngineError: a URL, key or number that cannot be used.
        """
        if attempts < 1 or timeout <= 0:
            raise EngineError(f"attempts and timeout must be positive, not {attempts}, {timeout}")
        if key is None and not direct:
            key = os.environ.get("RINGFENCE_API_KEY") or os.environ.get("OPENAI_API_KEY")
        key = (key or "").strip()  # a file's final newline would be an illegal header
        if not (key.isascii() and key.isprintable()):  # httpx would quote it in its error
            raise EngineError(
                "the API key holds control characters or letters outside ASCII, which no header "
                "can hold. Check RINGFENCE_API_KEY, OPENAI_API_KEY or key."
            )
        try:
            url = httpx.URL(base_url)
            if url.port is not None and url.port > 65_535:
                raise httpx.InvalidURL(f"there is no port {url.port}")
            self._client = httpx.AsyncClient(
                base_url=url,
                headers={"Authorization": f"Bearer {key}"} if key else {},
                timeout=httpx.Timeout(timeout, connect=min(timeout, 10.0), pool=None),
                limits=httpx.Limits(max_connections=None, max_keepalive_connections=32),
                trust_env=not direct,
            )
        except (httpx.InvalidURL, UnicodeError) as error:
            raise EngineError(f"{base_url!r} is no usable URL: {error}") from error
        # Without user name and password, since it goes into error messages.
        self.name = str(url.copy_with(userinfo=b"", fragment=None)).rstrip("/")
        self._timeout = timeout
        self._attempts = attempts
        self._backoff = backoff
        self._alive = alive
        self._rng = rng or random.Random()

    async def get(self, path: str) -> dict[str, Any]:
        """GET a JSON object; `path` is relative to the base URL, or a whole URL.

        Raises:
            ConnectionLostError: not reachable.
            EngineError: any other failure; says the way out.
        """
        return await self._ask("GET", path, None)

    async def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """POST a JSON object, get one back; see `get`.

        Raises:
            ContextError: the server says that the prompt is too long.
        """
        return await self._ask("POST", path, body)

    async def aclose(self) -> None:
        """Close all sockets."""
        await self._client.aclose()

    async def _ask(self, method: str, path: str, body: dict[str, Any] | None) -> dict[str, Any]:
        for attempt in range(1, self._attempts + 1):
            try:
                response = await self._client.request(method, path, json=body)
            except (httpx.ConnectTimeout, httpx.NetworkError, httpx.RemoteProtocolError) as error:
                failure: EngineError = self._lost(error, attempt)
                wait = None
            except httpx.TimeoutException as error:
                raise EngineError(
                    f"{self.name} sent nothing for {self._timeout:g} s. If it is just slow, raise "
                    "timeout=SECONDS."
                ) from error
            except httpx.HTTPError as error:
                raise EngineError(f"{self.name}/{path}: {error!r}") from error
            except RuntimeError as error:  # httpx says so when somebody else closed it meanwhile
                if not self._client.is_closed:
                    raise
                raise ConnectionLostError(f"{self.name} was closed during a call") from error
            else:
                if response.status_code not in _TRANSIENT:
                    return _json_object(response)
                failure, wait = _failure(response, attempt), _retry_after(response)
            if attempt < self._attempts:
                await asyncio.sleep(self._pause(attempt) if wait is None else wait)
            if not self._alive():
                break
        raise failure

    def _pause(self, attempt: int) -> float:
        pause = self._backoff * 2.0 ** (attempt - 1) * self._rng.uniform(0.5, 1.5)
        return min(pause, _LONGEST_WAIT)

    def _lost(self, error: httpx.HTTPError, attempt: int) -> ConnectionLostError:
        lost = ConnectionLostError(
            f"{self.name} cannot be reached or hung up ({error or type(error).__name__}; "
            f"{attempt} attempts). Is the server running, and is this its address?"
        )
        lost.__cause__ = error
        return lost


def _retry_after(response: httpx.Response) -> float | None:
    """Seconds the server asks to wait; dates and nonsense are ignored."""
    try:
        return min(max(float(response.headers.get("Retry-After", "")), 0.0), _LONGEST_WAIT)
    except ValueError:
        return None


def _json_object(response: httpx.Response) -> dict[str, Any]:
    if response.status_code != 200:
        raise _failure(response, 1)
    try:
        answer = response.json()
    except ValueError:
        answer = None
    if not isinstance(answer, dict):
        raise EngineError(
            f"{_where(response)} did not answer with a JSON object. Is the base URL right? It "
            "usually ends in /v1."
        )
    return answer


def _where(response: httpx.Response) -> str:
    return str(response.request.url.copy_with(userinfo=b""))


def _failure(response: httpx.Response, attempt: int) -> EngineError:
    status, said, where = response.status_code, _said(response), _where(response)
    if status in (400, 413, 500) and _TOO_LONG.search(said):
        return ContextError(f"{where} says: {said}. Shorten the conversation or max_tokens.")
    if status in (401, 403):
        return EngineError(
            f"{where} refuses the key ({status}: {said}). Set RINGFENCE_API_KEY to the server's."
        )
    if status == 404:
        return EngineError(
            f"{where} does not exist ({said}). The base URL usually ends in /v1; if the model is "
            "meant, name one the server has, as in http://HOST/v1#MODEL."
        )
    if status == 429:
        return EngineError(
            f"{where} is overloaded or the quota is spent (429 after {attempt} attempts: {said})"
        )
    return EngineError(f"{where} answered {status} (attempt {attempt}): {said}")


def _said(response: httpx.Response) -> str:
    """The message in an error response, in the forms that servers use, cut to a sane length."""
    try:
        body = response.json()
        error = body.get("error", body)
        said = error.get("message") or error.get("detail") if isinstance(error, dict) else error
    except (ValueError, AttributeError):
        said = response.text
    return " ".join(str(said or response.reason_phrase).split())[:500]
