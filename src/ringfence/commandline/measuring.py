"""Options of the commands that measure: `evaluate`, `report`, `compare`, `export`.

What they do is in `evaluating` and `reporting`, imported when they run.
"""

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
            help="embedded, embedded:GGUF, hf:FOLDER, hf:owner/name or http://HOST/v1#MODEL, each "
            "with options such as ?decoder=guarded&principle=rings; or any model of Inspect.",
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
    kinds: Annotated[
        str | None,
        typer.Option(metavar="K[,K2…]", help="Only items of these kinds; of one suite."),
    ] = None,
    seeds: Annotated[int, typer.Option(help="How many, counted from 0.")] = 1,
    data: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Data sets that are not packaged.")
    ] = None,
    decoder: Annotated[str | None, typer.Option(help="Of every model of ours.")] = None,
    principle: Annotated[str | None, typer.Option(help="Of every model of ours.")] = None,
    judge: Annotated[
        str | None,
        typer.Option(
            metavar="ENGINE[?KEY=VALUE&…]", help="Another model to judge every model of ours with."
        ),
    ] = None,
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
        options |= {
            "judge": judge,
            "threshold": threshold,
            "prompt-only": "true" if prompt_only else None,
        }
        plan = evaluating.planned(
            model=model,
            suites=suite,
            table=table,
            options=options,
            seeds=seeds,
            limit=limit,
            kinds=kinds,
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


def report(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN…", help="Run folders of evaluate.")],
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Default: RUN/report of the first.")
    ] = None,
    samples: Annotated[
        int | None,
        typer.Option(
            min=0, help="Failing samples shown a suite, model and metric. Default: all that fit."
        ),
    ] = None,
    table: Annotated[
        list[str] | None,
        typer.Option(metavar="instruction-hierarchy|rain", help="A paper's table beside ours."),
    ] = None,
    regrade: Annotated[
        bool, typer.Option("--regrade", help="Only grade stored replies again; 1 if some differ.")
    ] = False,
    data: Annotated[
        Path | None, typer.Option(metavar="DIR", help="With --regrade: as of evaluate.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """Tables, figures and one HTML page of what evaluations found."""
    from ringfence.commandline import reporting, terminal

    with told():
        if not regrade:
            _means_nothing("without --regrade", data=data)
        else:
            _means_nothing("with --regrade", out=out, samples=samples, table=table or None)
        console = terminal.console()
        if not regrade:
            reporting.report(
                runs, console, out=out, samples=samples, tables=table or [], as_json=json
            )
        elif reporting.regrade(runs, console, data=data, as_json=json):
            raise typer.Exit(1)


def compare(
    run_a: Annotated[Path, typer.Argument(metavar="RUN_A", help="Run folder, before.")],
    run_b: Annotated[Path, typer.Argument(metavar="RUN_B", help="Run folder, after.")],
    model_a: Annotated[str | None, typer.Option(help="Where RUN_A has several.")] = None,
    model_b: Annotated[str | None, typer.Option(help="Where RUN_B has several.")] = None,
    fail_if: Annotated[
        list[str] | None,
        typer.Option(
            metavar="CONDITION",
            help="SUITE[.METRIC] drops|rises|changes|worsens|improves > POINTS [significantly]",
        ),
    ] = None,
    regrade: Annotated[
        bool, typer.Option("--regrade", help="By the graders of today, for runs of older versions.")
    ] = False,
    data: Annotated[
        Path | None, typer.Option(metavar="DIR", help="With --regrade: as of evaluate.")
    ] = None,
    junit: Annotated[Path | None, typer.Option(metavar="FILE", help="For build servers.")] = None,
    sarif: Annotated[Path | None, typer.Option(metavar="FILE", help="For code scanning.")] = None,
    json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """Two models on the same items, with paired tests; exit code 1 where a condition holds."""
    from ringfence.commandline import reporting, terminal

    with told():
        if not regrade:
            _means_nothing("without --regrade", data=data)
        failed = reporting.compared(
            run_a,
            run_b,
            terminal.console(),
            model_a=model_a,
            model_b=model_b,
            fail_if=fail_if or [],
            junit_file=junit,
            sarif_file=sarif,
            regrade=regrade,
            data=data,
            as_json=json,
        )
    if failed:
        raise typer.Exit(1)


def _means_nothing(where: str, **options: Any) -> None:
    """Refuse options that would be ignored."""
    from ringfence.errors import InputError

    for name, value in options.items():
        if value is not None:
            raise InputError(f"--{name}: means nothing {where}; leave it out")


def export(
    tool: Annotated[str, typer.Argument(metavar="garak|promptfoo", help="Whose configuration.")],
    model: Annotated[str, typer.Option(help="As the server's /v1/models names it.")],
    out: Annotated[Path, typer.Option(metavar="FILE", help="Where the YAML goes.")],
    url: Annotated[str, typer.Option(help="Of the server.")] = "http://127.0.0.1:8000/v1",
    force: Annotated[bool, typer.Option("--force", help="Replace what is there.")] = False,
    json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """Write a configuration with which another tool scans `ringfence serve`."""
    from ringfence.commandline import reporting

    with told():
        reporting.export(tool, url=url, model=model, out=out, force=force, as_json=json)
