"""The commands `train sft`, `train dpo` and `train pairs`. What is done is `ringfence.training`."""

from __future__ import annotations

import json as jsons
import os
import shlex
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from ringfence.commandline.failures import INTERRUPTED, first_process, say, say_if_new, told

DIVERGED = 3

train_app = typer.Typer(
    help="Train the rings into a chat model.", no_args_is_help=True, rich_markup_mode=None
)

Model = Annotated[
    str, typer.Option(metavar="MODEL", help="embedded, a model folder, a GGUF file or owner/name.")
]
Data = Annotated[
    list[str] | None,
    typer.Option(
        metavar="[NAME=]PATH,…", help="Folders of synthesize or pairs, or JSONL files; repeatable."
    ),
]
Out = Annotated[Path | None, typer.Option(metavar="DIR", help="Folder for the result.")]
RecipeFile = Annotated[
    Path | None, typer.Option("--recipe", metavar="FILE.yaml", help="See recipes/.")
]
Adapter = Annotated[
    Path | None, typer.Option(metavar="DIR", help="Go on with this adapter, as DPO after SFT.")
]
Check = Annotated[
    Path | None,
    typer.Option(metavar="DIR", help="Evaluation data that must not occur in the training data."),
]
Most = Annotated[
    float, typer.Option(min=0, max=1, help="Share of its texts that may share 8 words in a row.")
]
Told = Annotated[
    list[str] | None,
    typer.Option(
        "--template-option",
        metavar="NAME=VALUE",
        help="For the chat template: enable_thinking=false. Repeatable.",
    ),
]
Full = Annotated[bool, typer.Option("--full", help="Train all weights, no adapter.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on from the last checkpoint.")]
Force = Annotated[bool, typer.Option("--force", help="Replace what is there.")]
Dry = Annotated[
    bool, typer.Option("--dry-run", help="Memory and data, by arithmetic; nothing is trained.")
]
Cpu = Annotated[bool, typer.Option("--cpu", help="Do without an accelerator.")]
Json = Annotated[bool, typer.Option("--json", help="As JSON.")]


@train_app.command()
def sft(
    model: Model,
    data: Data = None,
    out: Out = None,
    recipe: RecipeFile = None,
    adapter: Adapter = None,
    check_against: Check = None,
    most_overlap: Most = 0.0,
    template_option: Told = None,
    full: Full = False,
    resume: Resume = False,
    force: Force = False,
    dry_run: Dry = False,
    cpu: Cpu = False,
    json: Json = False,
) -> None:
    """Supervised training on right replies; exit code 3 if the loss is no longer a number."""
    _trained("sft", locals())


@train_app.command()
def dpo(
    model: Model,
    data: Data = None,
    out: Out = None,
    recipe: RecipeFile = None,
    adapter: Adapter = None,
    check_against: Check = None,
    most_overlap: Most = 0.0,
    template_option: Told = None,
    full: Full = False,
    resume: Resume = False,
    force: Force = False,
    dry_run: Dry = False,
    cpu: Cpu = False,
    json: Json = False,
) -> None:
    """Training on preferences (DPO); exit code 3 if the loss is no longer a number."""
    _trained("dpo", locals())


@train_app.command()
def pairs(
    model: Annotated[
        str, typer.Option(metavar="ENGINE", help="embedded, a model folder, or any engine.")
    ],
    data: Annotated[Path, typer.Option(metavar="DIR", help="Folder of synthesize.")],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder for the pairs.")],
    samples: Annotated[int, typer.Option(help="Replies to every conversation.")] = 4,
    max_tokens: Annotated[int, typer.Option(help="Longest reply.")] = 256,
    temperature: Annotated[float, typer.Option(min=0, help="Of the replies.")] = 1.0,
    seed: Annotated[int, typer.Option(help="Of the replies.")] = 0,
    adapter: Annotated[
        str | None, typer.Option(metavar="PATH|packaged|none", help="Adapter of the model.")
    ] = None,
    template_option: Told = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only so many cases.")] = None,
    concurrency: Annotated[int, typer.Option(min=1, help="Cases side by side.")] = 4,
    resume: Resume = False,
    force: Force = False,
    json: Json = False,
) -> None:
    """Preferences from the model's own failures, found by the graders of the cases."""
    from ringfence.commandline.pairing import Job

    with told():
        job = Job(
            model=model,
            data=data,
            out=out,
            samples=samples,
            max_tokens=max_tokens,
            temperature=temperature,
            seed=seed,
            adapter=adapter,
            template_options=_template_options(template_option),
            limit=limit,
            concurrency=concurrency,
        )
        job.do(resume=resume, force=force, as_json=json)


@train_app.command()
def schema() -> None:
    """JSON Schema of recipe files."""
    from ringfence.training.recipe import schema as made

    print(jsons.dumps(made(), indent=2))


def _trained(kind: Literal["sft", "dpo"], given: dict[str, Any]) -> None:
    from ringfence.errors import InputError

    with told():
        if not given["dry_run"]:
            for name in ("data", "out"):
                if not given[name]:
                    raise InputError(f"--{name}: is needed, except with --dry-run")
        job = _job(kind, given)
        if given["dry_run"]:
            _dry_run(job, as_json=given["json"])
            return
        _run(job, given)


def _job(kind: Literal["sft", "dpo"], given: dict[str, Any]) -> Any:
    from ringfence.configuration import at_home
    from ringfence.training.job import Job
    from ringfence.training.recipe import load

    data = tuple(path for item in given["data"] or () for path in item.split(",") if path)
    for path in (given["model"], *(one.rpartition("=")[2] for one in data)):
        at_home(path)
    return Job(
        kind=kind,
        model=given["model"],
        data=data,
        out=given["out"] or Path(),
        recipe=load(given["recipe"], full=given["full"]),
        adapter=given["adapter"],
        check_against=given["check_against"],
        most_overlap=given["most_overlap"],
        cpu=given["cpu"],
        template_options=_template_options(given["template_option"]),
    )


def _template_options(words: list[str] | None) -> dict[str, Any]:
    from ringfence.commandline.flags import Flags

    found: dict[str, Any] = Flags(template_option=words).given().get("template_options", {})
    return found


def _dry_run(job: Any, *, as_json: bool) -> None:
    from ringfence.commandline import terminal
    from ringfence.training.job import dry_run

    found = dry_run(job, say)
    lines = found.pop("lines")
    if as_json:
        terminal.emit(jsons.dumps(found))
        return
    for line in lines:
        terminal.console().print(terminal.shown_lines(line))


def _run(job: Any, given: dict[str, Any]) -> None:
    from ringfence.commandline import terminal
    from ringfence.training.metrics import DivergedError
    from ringfence.training.models import library

    for name in ("torch", "transformers", "trl", "peft", "accelerate"):
        library(name)
    from ringfence.training.running import train

    if first_process():
        say_if_new(job.out, resume=given["resume"])
    try:
        outcome = train(job, say, resume=given["resume"], force=given["force"])
    except DivergedError as error:
        if first_process():
            say(f"error: {error}")
        raise typer.Exit(DIVERGED) from error
    if outcome.stopped_by:
        code = INTERRUPTED if outcome.stopped_by == 2 else 128 + outcome.stopped_by
        if not first_process():
            raise typer.Exit(code)
        words = [word for word in sys.argv[1:] if word not in ("--resume", "--force")]
        count = os.environ.get("WORLD_SIZE", "1")
        how = "" if count == "1" else f", in {count} processes as before"
        say(
            f"stopped: step {outcome.step} of {outcome.steps} is safe. Go on{how} with: "
            f"{shlex.join(['ringfence', *words, '--resume'])}"
        )
        raise typer.Exit(code)
    if outcome.manifest is None:
        return  # not the first process
    result = outcome.manifest["result"]
    if given["json"]:
        summary = {"out": str(job.out), **result, "data": outcome.manifest["data"]}
        terminal.emit(jsons.dumps(summary))
        return
    say(
        f"{job.out}: {result['steps']} steps, loss {result['first_loss']:.4f} → "
        f"{result['last_loss']:.4f}, {result['tokens_per_second']:,.0f} tokens/s"
    )
