"""How a server is set up, as data. Knows nothing of HTTP or of how replies are made."""

from __future__ import annotations

import ipaddress
import re
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator, model_validator

from ringfence.errors import InputError
from ringfence.options import DecoderName, Options

MEBIBYTE = 1024 * 1024


class ServerSettings(BaseModel):
    """How a server is set up.

    Attributes:
        host: address to listen on.
        port: 0 takes a free one.
        api_key: what clients must send as a bearer token. Required off loopback.
        model: what clients call the model; None takes the engine's name.
        decoder: of requests that name none; None is `guarded` with principles and `plain` without.
        principle: of requests that name none; None is the first one loaded.
        policy: of requests that name none: a preset or a YAML file.
        options: what requests leave out. `options.budget` is the hard limit of every request, which
            a request may lower and not raise. Requests without a seed get a fresh one each, unless
            `options.seed` is set.
        locked: how replies are made is the operator's alone: requests may set nothing of
            `ringfence` but a lower budget, and no other principle for moderation. Where a request
            makes a reply's budget smaller, `options.exhausted: best` does not hold.
        concurrency: requests that are decoded at once.
        queue: requests that may wait for that; more are refused with 429.
        keepalive: seconds without a committed token after which a stream gets a comment line.
        stop_seconds: how long requests may go on once the server stops; then they are refused.
        body_bytes: largest request body.

    Raises:
        InputError: an address off loopback without a key.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    host: str = "127.0.0.1"
    port: int = Field(default=8000, ge=0, le=65535)
    api_key: SecretStr | None = None
    model: str | None = Field(default=None, min_length=1)
    decoder: DecoderName | None = None
    principle: str | None = None
    policy: str = "harmony"
    options: Options = Options()
    locked: bool = False
    concurrency: int = Field(default=8, ge=1, le=4096)
    queue: int = Field(default=64, ge=0, le=65536)
    keepalive: float = Field(default=5.0, gt=0)
    stop_seconds: float = Field(default=30.0, ge=0)
    body_bytes: int = Field(default=4 * MEBIBYTE, ge=1024)

    @field_validator("api_key")
    @classmethod
    def _sendable(cls, key: SecretStr | None) -> SecretStr | None:
        if key is not None and not re.fullmatch(r"[!-~]+", key.get_secret_value()):
            raise ValueError("must be visible ASCII characters, which is what a header can carry")
        return key

    @model_validator(mode="after")
    def _guarded(self) -> Self:
        self.check_exposure(self.host)
        return self

    def check_exposure(self, host: str) -> None:
        """Refuse an address that others can reach, unless there is a key.

        Raises:
            InputError: off loopback and no key.
        """
        if self.api_key is None and not is_loopback(host):
            raise InputError(
                f"host {host!r} can be reached from other machines, and there is no api_key. "
                "Set an api_key, or listen on 127.0.0.1."
            )


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach the address. Names other than localhost count as not."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
