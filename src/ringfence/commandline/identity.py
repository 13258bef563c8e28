"""What makes a job's replies these replies, as plain data: what `--resume` goes on with.

Files count by their content, wherever they lie: another model under the same name is another job.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

from ringfence.adapters.choosing import PACKAGED
from ringfence.commandline.workplace import takes_packaged
from ringfence.configuration import Settings
from ringfence.errors import InputError
from ringfence.evaluation.fingerprints import of_model
from ringfence.evaluation.names import ModelName, judge_of
from ringfence.policy_files import load
from ringfence.principle import Principle


def described(settings: Settings, *, trained: bool) -> dict[str, Any]:
    """Everything in the settings that decides what a reply says.

    Args:
        settings: of the command.
        trained: as of `opened`.

    Raises:
        InputError: a principle, adapter or chat template that cannot be read.
    """
    name = settings.one_principle()
    files = _files(settings, trained)
    return {
        "engine": settings.engine,
        "tokenizer": settings.tokenizer,
        "adapter": settings.adapter,
        "rings_strength": settings.rings_strength,
        **({"judge": settings.judge} if settings.judge else {}),
        "decoder": settings.chosen_decoder(),
        "principle": Principle.load(name).model_dump(mode="json") if name else None,
        "embedder": settings.embedder,
        **({"model_files": files} if files else {}),
        **_template(settings),
        **settings.options.model_dump(mode="json"),
    }


def _files(settings: Settings, trained: bool) -> dict[str, str]:
    """Hashes of the files of model, adapter, tokenizer and of the model that judges.

    Whole files, as `evaluate` takes them, although they may be large: opening the model reads them
    once more, and then finds them in memory where they fit.
    """
    opening = {
        "adapter": PACKAGED if takes_packaged(settings, trained=trained) else settings.adapter,
        "rings_strength": settings.rings_strength,
        "tokenizer": settings.tokenizer,
    }
    # The principle stands in the description by itself, packaged or not.
    return of_model(
        ModelName(
            settings=settings.model_copy(update={"principle": ()}),
            named=frozenset(),
            policy=load(settings.policy),
            prompt_only=False,
            opening=opening,
            judge=judge_of(settings),
        )
    )


def _template(settings: Settings) -> dict[str, Any]:
    """The chat template of one's own, by its text, and variables for it; empty without any.

    Raises:
        InputError: it cannot be read.
    """
    told: dict[str, Any] = {}
    if settings.chat_template is not None:
        try:
            text = Path(os.path.expanduser(settings.chat_template)).read_bytes()
        except OSError as error:
            raise InputError(
                f"chat_template: {settings.chat_template} cannot be read: {error}"
            ) from None
        told["chat_template"] = hashlib.sha256(text).hexdigest()
    if settings.template_options:
        told["template_options"] = settings.template_options
    return told
