"""The command `ringfence`: parses, opens, calls. What is shown is in `ringfence.commandline`.

Nothing heavy is imported before a command runs, so that `--help` is quick.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

import typer

from ringfence.commandline import measuring
from ringfence.commandline.failures import INTERRUPTED, say, told
from ringfence.commandline.flags import Flags, shared
from ringfence.commandline.training import train_app
from ringfence.errors import InputError

if TYPE_CHECKING:
    from rich.console import Console

    from ringfence.configuration import Settings

T = TypeVar("T")

app = typer.Typer(
    name="ringfence",
    help="Rings of privilege and rewindable decoding for open-weight chat models.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
judge_app = typer.Typer(
    help="Judges: how good they are.", no_args_is_help=True, rich_markup_mode=None
)
app.add_typer(judge_app, name="judge")
adapter_app = typer.Typer(
    help="Adapters: to llama.cpp and back.", no_args_is_help=True, rich_markup_mode=None
)
app.add_typer(adapter_app, name="adapter")
app.add_typer(train_app, name="train")

Force = Annotated[bool, typer.Option("--force", help="Go on with a judge at chance.")]
PolicyName = Annotated[
    str | None,
    typer.Option(
        "--policy",
        metavar="NAME|FILE",
        help="Order of rings: harmony (default), paper, model-spec, tiers(N), or YAML.",
    ),
]


def main() -> None:
    """Entry point."""
    app()


@app.callback(invoke_without_command=True)
def _options(
    show_version: Annotated[
        bool, typer.Option("--version", help="Print the version and leave.", is_eager=True)
    ] = False,
) -> None:
    if show_version:
        version()
        raise typer.Exit


@app.command()
def version() -> None:
    """Print the version."""
    from importlib.metadata import version as installed

    print(f"ringfence {installed('ringfence')}")


@app.command()
@shared
def demo(flags: Flags) -> None:
    """Three prompts, plain beside guarded and rain: the drafts, the rewinds, the cost."""
    from ringfence.commandline import demo as view
    from ringfence.commandline.workplace import opened

    settings = _settings(flags, view.DEFAULTS)
    if settings.decoder is not None:
        where = "--decoder" if flags.decoder else f"{flags.config}: decoder"
        raise InputError(f"{where}: demo shows plain, guarded and rain; chat takes one")
    if settings.one_principle() is None:
        raise InputError(f"{flags.config}: principle: the demo judges; name one principle")

    async def work() -> None:
        async with opened(settings) as place:
            await view.demo(place, _console(flags), as_json=flags.json)

    _run(work())


@app.command()
@shared
def chat(flags: Flags, policy: PolicyName = None) -> None:
    """Talk to the model and watch it rewind. /help lists commands; Ctrl-C stops a reply."""
    from ringfence.commandline import chat as view
    from ringfence.commandline.judging import admitted
    from ringfence.commandline.workplace import opened

    settings = _settings(flags, given=_given(policy=policy))

    async def work() -> None:
        async with opened(settings) as place:
            if place.judge is not None:
                await admitted(place, force=True)
            await view.chat(place, _console(flags), as_json=flags.json)

    _run(work())


@app.command()
@shared
def generate(
    flags: Flags,
    prompts: Annotated[
        Path,
        typer.Option(
            metavar="FILE.jsonl",
            help='Lines {"messages": […]}, or {"prompt": …}: raw text to go on from, without chat '
            'template and rings. "id" names a line.',
        ),
    ],
    out: Annotated[Path, typer.Option(metavar="FILE.jsonl", help="One line a prompt, in order.")],
    concurrency: Annotated[int | None, typer.Option(help="Prompts side by side.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only so many prompts.")] = None,
    policy: PolicyName = None,
    any_judge: Annotated[
        bool, typer.Option("--any-judge", help="Go on with a judge at chance.")
    ] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a run cut short.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace what is there.")] = False,
    cost: Annotated[
        bool, typer.Option(help="Without, equal seeds give equal files, byte for byte.")
    ] = True,
) -> None:
    """Answer a file of prompts. Cut short at any moment, it loses nothing: --resume goes on.

    Exit code 1 where a line is an error, of this part of the run or of an earlier one.
    """
    from ringfence.commandline import batch

    settings = _settings(flags, given=_given(concurrency=concurrency, policy=policy))
    job = batch.Batch(settings, prompts, out, limit=limit, cost=cost, any_judge=any_judge)
    try:
        summary = _run(job.run(resume=resume, force=force))
    except KeyboardInterrupt:
        words = [word for word in sys.argv[1:] if word not in ("--resume", "--force")]
        say(
            f"interrupted: {job.finished} of {len(job.prompts)} lines are safe. Go on with: "
            f"{shlex.join(['ringfence', *words, '--resume'])}"
        )
        raise typer.Exit(INTERRUPTED) from None
    batch.told(summary, out, as_json=flags.json)
    if summary["reasons"].get("error"):
        raise typer.Exit(1)


@app.command()
@shared
def serve(
    flags: Flags,
    host: Annotated[str | None, typer.Option(help="Default: 127.0.0.1.")] = None,
    port: Annotated[int | None, typer.Option(help="Default: 8000; 0 takes a free one.")] = None,
    api_key: Annotated[
        str | None,
        typer.Option(
            envvar="RINGFENCE_SERVE_KEY", help="What clients must send; required off loopback."
        ),
    ] = None,
    locked: Annotated[
        bool | None, typer.Option("--locked", help="Requests may not choose how they are decoded.")
    ] = None,
    policy: PolicyName = None,
    force: Force = False,
) -> None:
    """Serve an OpenAI-compatible API. Without --principle it decodes plainly, and says so."""
    from ringfence.commandline import serving

    given = _given(host=host, port=port, api_key=api_key, locked=locked)
    settings = _settings(flags, given=_given(policy=policy))
    _run(serving.serve(settings, given, force=force, as_json=flags.json))


@judge_app.command("check")
@shared
def judge_check(
    flags: Flags,
    data: Annotated[
        Path | None,
        typer.Option(metavar="FILE.jsonl", help="Lines with prompt or messages, reply, good."),
    ] = None,
    limit: Annotated[
        int | None, typer.Option(metavar="N", help="So many lines, all sorts in turn.")
    ] = None,
    force: Force = False,
) -> None:
    """Measure a judge on labelled replies; exit code 1 if it is at chance."""
    from ringfence.commandline import judging
    from ringfence.commandline.workplace import opened

    settings = _settings(flags)

    async def work() -> bool:
        async with opened(settings) as place:
            report = await judging.measured(place, data, limit)
        judging.show(report, _console(flags), as_json=flags.json)
        if report.at_chance:
            say(report.refusal())
        return report.at_chance

    if _run(work()) and not force:
        raise typer.Exit(1)


@app.command()
def audit(
    model: Annotated[
        str, typer.Argument(help="embedded, a GGUF file, a model folder or a template (.jinja).")
    ],
    policy: Annotated[str, typer.Option(help="Which roles are of different rings.")] = "harmony",
    json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """What a model's chat template does to rings; exit code 1 where one is lost."""
    from ringfence.commandline import auditing, terminal

    with told():
        report = auditing.audited(model, policy)
        auditing.show(report, terminal.console(), as_json=json)
    if report.lost:
        raise typer.Exit(1)


@app.command()
@shared
def synthesize(
    flags: Flags,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder for the files; made if new.")],
    recipe: Annotated[str, typer.Option(metavar="all|NAME,…", help="What to make.")] = "all",
    count: Annotated[int, typer.Option(help="Cases in all.")] = 1000,
    policy: PolicyName = None,
    split: Annotated[
        str, typer.Option(help="train, eval, or both: every fifth case of a recipe for eval.")
    ] = "both",
    best_of: Annotated[
        int | None, typer.Option(min=1, help="With --engine: tries a reply. Default: 4.")
    ] = None,
    concurrency: Annotated[
        int | None, typer.Option(help="With --engine: cases side by side.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a run cut short.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace what is there.")] = False,
) -> None:
    """Make training and evaluation cases whose replies are checked by code; no model is needed."""
    from ringfence.commandline import synthesizing

    given = _given(concurrency=concurrency)
    settings = _settings(flags, given=given) if flags.engine or flags.config else None
    if flags.config and settings and "engine" not in settings.model_fields_set:
        raise InputError(f"{flags.config}: names no engine; without one no option means anything")
    only = {*flags.given(), *given, *(["best_of"] if best_of else [])} - {"seed"}
    if settings is None and (idle := sorted(only)):
        option = idle[0].replace("_", "-")
        raise InputError(f"--{option}: means nothing here without --engine, which writes replies")
    job = synthesizing.Run(
        out,
        recipe=recipe,
        count=count,
        seed=flags.seed or (settings.options.seed if settings else None) or 0,
        policy=policy or (settings.policy if settings else "harmony"),
        split=split,
        settings=settings,
        best_of=best_of or 4,
    )
    try:
        summary = _run(job.run(resume=resume, force=force))
    except KeyboardInterrupt:
        words = [word for word in sys.argv[1:] if word not in ("--resume", "--force")]
        say(
            f"interrupted: {job.finished} of {job.count} cases are safe. Go on with: "
            f"{shlex.join(['ringfence', *words, '--resume'])}"
        )
        raise typer.Exit(INTERRUPTED) from None
    synthesizing.told(summary, out, as_json=flags.json)


@app.command()
def preview(
    recipe: Annotated[str, typer.Option(metavar="NAME", help="What to draw.")] = "conflict",
    seed: Annotated[int, typer.Option(help="As of synthesize.")] = 0,
    index: Annotated[int, typer.Option(help="Number of the case within its recipe.")] = 0,
    policy: Annotated[
        str, typer.Option(metavar="NAME|FILE", help="harmony, paper, model-spec, tiers(N), YAML.")
    ] = "harmony",
    split: Annotated[str, typer.Option(help="train or eval.")] = "train",
    json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """Draw one synthesised case with its siblings, ring by ring."""
    from ringfence.commandline import synthesizing, terminal

    with told():
        synthesizing.preview(
            terminal.console(),
            recipe=recipe,
            seed=seed,
            index=index,
            policy=policy,
            split=split,
            as_json=json,
        )


@app.command()
def policy(
    name: Annotated[
        str, typer.Argument(metavar="[NAME|FILE]", help="paper, harmony, model-spec, tiers(N), …")
    ] = "harmony",
    instructions: Annotated[
        Path | None,
        typer.Option(metavar="FILE.jsonl", help="Say which of these hold, and why."),
    ] = None,
    schema: Annotated[bool, typer.Option("--schema", help="JSON Schema of policy files.")] = False,
    json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """Show a policy: its rings, who sits in which, and which instructions hold."""
    from ringfence.commandline import policies, terminal

    with told():
        if schema:
            policies.show_schema()
        else:
            policies.show(name, instructions, terminal.console(), as_json=json)


@adapter_app.command("convert")
def adapter_convert(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="As PEFT saves it.")],
    out: Annotated[Path, typer.Option(metavar="FILE.gguf", help="What llama.cpp loads.")],
    base: Annotated[
        Path | None,
        typer.Option(help="Folder or GGUF of its model. Default: what it names, or the packaged."),
    ] = None,
    precision: Annotated[
        Literal["f32", "f16", "q8_0"], typer.Option(help="Of the numbers.")
    ] = "f16",
    rank: Annotated[
        int | None, typer.Option(min=1, help="At most; a smaller file that does about the same.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace what is there.")] = False,
    json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """Convert a LoRA adapter to GGUF, for the embedded engine and llama.cpp."""
    from ringfence.commandline import adapting

    with told():
        summary = adapting.converted(
            folder, out, base=base, precision=precision, rank=rank, force=force
        )
        adapting.told(summary, as_json=json)


@adapter_app.command("restore")
def adapter_restore(
    adapter: Annotated[str, typer.Argument(metavar="FILE.gguf|packaged", help="The adapter.")],
    out: Annotated[Path, typer.Option(metavar="DIR", help="As PEFT loads it; a new folder.")],
    base: Annotated[
        Path | None, typer.Option(help="Folder or GGUF of its model. Default: the packaged.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """Make a PEFT folder of a GGUF adapter, to go on training with it."""
    from ringfence.commandline import adapting

    with told():
        summary = adapting.restored(adapter, out, base=base)
        adapting.told_restored(summary, as_json=json)


for command in (measuring.evaluate, measuring.report, measuring.compare, measuring.export):
    app.command()(command)


@app.command()
def models(json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False) -> None:
    """What is installed, where, and how to get the rest."""
    from ringfence.commandline import inventory, terminal

    inventory.show(terminal.console(), as_json=json)


@app.command(hidden=True)
@shared
def picture(
    flags: Flags,
    prompt: Annotated[str | None, typer.Option(help="Raw text to go on from.")] = None,
    out: Annotated[Path, typer.Option(help="Where the SVG goes.")] = Path("docs/rewind.svg"),
) -> None:
    """Draw the tree of a real run, as in the README."""
    from ringfence.commandline import picture as view
    from ringfence.commandline.workplace import opened

    settings = _settings(flags, view.DEFAULTS)

    async def work() -> None:
        async with opened(settings) as place:
            out.write_text(await view.picture(place, prompt or view.PROMPT), "utf-8")

    _run(work())
    say(f"wrote {out}")


def _settings(
    flags: Flags, defaults: dict[str, Any] | None = None, given: dict[str, Any] | None = None
) -> Settings:
    from ringfence.configuration import settings_from

    return settings_from(flags.config, {**flags.given(), **(given or {})}, defaults)


def _given(**options: Any) -> dict[str, Any]:
    """The options that were given, by the names they have in a file."""
    return {name: value for name, value in options.items() if value is not None}


def _console(flags: Flags) -> Console:
    from ringfence.commandline import terminal

    return terminal.console(stderr=flags.json)


def _run(work: Coroutine[Any, Any, T]) -> T:
    import asyncio

    return asyncio.run(work)
