"""The command `serve`: judges measured, then the server of `ringfence.server`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import AsyncExitStack
from typing import Any

from pydantic import ValidationError

from ringfence.commandline.failures import say
from ringfence.commandline.judging import admitted
from ringfence.commandline.terminal import emit
from ringfence.commandline.workplace import opened
from ringfence.configuration import Settings
from ringfence.errors import InputError
from ringfence.judges import Judge
from ringfence.yaml_files import explain

# Literals by `repr`, which escapes what is not printable: a remote server names its model itself.
SNIPPET = """\
    from openai import OpenAI
    client = OpenAI(base_url={url!r}, api_key={key!r})
    client.chat.completions.create(
        model={model!r}, messages=[{{"role": "user", "content": "Hi"}}]
    )"""


async def serve(
    settings: Settings, given: Mapping[str, Any], *, force: bool, as_json: bool
) -> None:
    """Serve until it is told to stop.

    Args:
        settings: engine, principles, defaults of requests.
        given: options of the server from the command line; they win over those of the file.
        force: serve principles whose judge is at chance or was never measured.
        as_json: print the address as a line of JSON, and not how to use it.

    Raises:
        InputError: the extra is not installed, or an option cannot be used.
        JudgeError: a judge is at chance.
    """
    try:
        from ringfence.server import ServerSettings, create_app
        from ringfence.server import serve as listen
    except ImportError as error:
        raise InputError(
            f"the server is not installed ({error}). pip install 'ringfence[serve]'"
        ) from error
    if "options" in settings.serve:
        raise InputError(
            "serve.options: how replies are made stands at the top level of the file, not under "
            "serve; move its fields there"
        )
    try:
        server = ServerSettings(
            **{"decoder": settings.decoder, "policy": settings.policy, **settings.serve, **given},
            options=settings.options,
        )
    except ValidationError as error:
        raise InputError(f"serve: {explain(error, ServerSettings)}") from None
    async with AsyncExitStack() as stack:
        plain = settings.model_copy(update={"principle": (), "decoder": "plain"})
        place = await stack.enter_async_context(opened(plain))
        judges: dict[str, Judge] = {}
        for name in settings.principle:
            judging = await place.judging(name)
            assert judging.judge is not None and judging.principle is not None
            if judging.principle.name in judges:
                raise InputError(
                    f"principle {name}: another one is named {judging.principle.name!r}, too; "
                    "requests name them, so give one of them another `name:`"
                )
            await admitted(judging, force=force)
            judges[judging.principle.name] = judging.judge
        app = create_app(place.engine, judges=judges, settings=server, embedder=place.embedder)

        def started(line: str) -> None:
            say(line)
            url = next((word for word in line.split() if word.startswith("http")), "").rstrip(".")
            model = server.model or place.engine.card.name
            open_to_all = server.api_key is None
            if as_json:
                told = {"url": url, "model": model, "principles": sorted(judges)}
                emit(json.dumps(told | {"key_required": not open_to_all}))
                return
            key = "unused" if open_to_all else "YOUR-KEY"
            print(SNIPPET.format(url=url, key=key, model=model), flush=True)

        await listen(app, started=started)
