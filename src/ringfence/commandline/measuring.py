"""The options of the command `evaluate`. What it does is in `evaluating`, imported when it runs."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from ringfence.commandline.failures import INTERRUPTED, say, told


def evaluate(
    out: Annotated[Path, typer.Option(metavar="DIR", help="Run folder; made if new.")],
    model: Annotated[
        str,
        typer.Option(
            metavar="M[,M2…]",
            help="embedded, embedded:GGUF, hf:FOLDER or http://HOST/v1#MODEL, each with options "
            "such as ?decoder=guarded&principle=rings; or any model of Inspect.",
        ),
    ] = "embedded",
    suite: Annotated[
        str | None,
        typer.Option(metavar="S[,S2…]|all", help="What to measure. Default: all, or the table's."),
    ] = None,
    table: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="A paper's: instruction-hierarchy or rain."),
    ] = None,
    limit: Annotated[int | None, typer.Option(help="Most items of a suite.")] = None,
    seeds: Annotated[int, typer.Option(help="How many, counted from 0.")] = 1,
    data: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Data sets that are not packaged.")
    ] = None,
    decoder: Annotated[str | None, typer.Option(help="Of every model of ours.")] = None,
    principle: Annotated[str | None, typer.Option(help="Of every model of ours.")] = None,
    preset: Annotated[str | None, typer.Option(help="Of every model of ours.")] = None,
    threshold: Annotated[float | None, typer.Option(help="Of every model of ours.")] = None,
    prompt_only: Annotated[
        bool, typer.Option("--prompt-only", help="A paragraph in the system message, no more.")
    ] = False,
    max_samples: Annotated[
        int | None,
        typer.Option(
            min=1, help="Samples side by side. Default: 16, and 4 where llama.cpp runs here."
        ),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a run cut short.")] = False,
    json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """Measure models on suites, into a run folder. Cut short, it loses nothing: --resume goes on.

    Exit code 1 where samples failed.
    """
    with told():
        from ringfence.commandline import evaluating, terminal

        options: dict[str, Any] = {"decoder": decoder, "principle": principle, "preset": preset}
        options |= {"threshold": threshold, "prompt-only": "true" if prompt_only else None}
        plan = evaluating.planned(
            model=model,
            suites=suite,
            table=table,
            options=options,
            seeds=seeds,
            limit=limit,
            data=data,
            samples=max_samples,
            command=sys.argv[1:],
        )
        try:
            summary = evaluating.evaluate(out, plan, resume=resume, table=table)
        except KeyboardInterrupt:
            words = [word for word in sys.argv[1:] if word != "--resume"]
            say(f"interrupted; go on with: {shlex.join(['ringfence', *words, '--resume'])}")
            raise typer.Exit(INTERRUPTED) from None
        evaluating.told(summary, terminal.console(), as_json=json)
    if summary["failed"] or summary["missing"]:
        raise typer.Exit(1)
