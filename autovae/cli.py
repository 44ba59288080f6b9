"""The command line, thin: parse, call, print. `--help` and `--version` load neither torch nor optuna nor pandas.

Bad input ends in one line on standard error and exit code 2; Ctrl-C in exit code 130 and how to resume.
With --json standard output holds one JSON object and nothing else.
"""

from __future__ import annotations

import json as json_format
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

import autovae

__all__ = ["app", "main"]

app = typer.Typer(
    name="autovae",
    help="Search the beliefs of a variational autoencoder, see which belief mattered, export the winner as a prior.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    epilog="Start with `autovae run quickstart`, then open the report it names.",
)

DataDir = Annotated[
    Path | None, typer.Option("--data", help="Folder with data sets; else $AUTOVAE_DATA, else the user cache.")
]
Results = Annotated[Path, typer.Option("--results", help="Folder for results.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output, all else on stderr.")]
Seed = Annotated[int, typer.Option("--seed", min=0, help="Seed of the draws.")]
Device = Annotated[str | None, typer.Option("--device", help="cpu, cuda or cuda:N; the GPU if there is one.")]
PriorFolder = Annotated[Path, typer.Argument(help="A saved prior, such as results/quickstart/winners/1.")]


def _version(value: bool) -> None:
    if value:
        typer.echo(f"autovae {autovae.__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and stop.")
    ] = False,
) -> None:
    return None


def _say(text: str, json: bool = False) -> None:
    """Words for people: on standard output, or out of JSON's way on standard error."""
    typer.echo(text, err=json)


def _emit(values: dict[str, Any]) -> None:
    typer.echo(json_format.dumps(values, indent=2, default=str))


@app.command()
def run(
    study: Annotated[str, typer.Argument(help="A study by name (see studies/) or the path of a .toml file.")],
    plan: Annotated[bool, typer.Option("--plan", help="Print what would be done, and do nothing.")] = False,
    dataset: Annotated[
        str | None, typer.Option("--dataset", help="Instead of the study's: a name, an .npz, a folder of images.")
    ] = None,
    trials: Annotated[
        int | None, typer.Option("--trials", min=1, help="Finished trials that the study shall have in all.")
    ] = None,
    full: Annotated[
        bool, typer.Option("--full", help="A reproduction in its full setting, for a GPU, instead of the short one.")
    ] = False,
    results: Results = Path("results"),
    data: DataDir = None,
    device: Device = None,
    json: Json = False,
) -> None:
    """Run or resume a study; the same command again goes on where it stopped.

    `autovae run quickstart` searches pairs of families and likelihoods on scikit-learn's digits.
    `autovae run quickstart --dataset my.npz` does the same on an array `x` of your own.
    `autovae run iwae_mnist` runs a published experiment again: `--full` in its full setting.
    """
    from autovae.reproductions.files import is_reproduction

    if is_reproduction(study):
        if dataset is not None or trials is not None:
            raise ValueError("--dataset and --trials are for searches; a reproduction says both in its study file")
        _reproduce(study, full, plan, results, data, device, json)
        return
    if full:
        raise ValueError(f"--full is for reproductions; {study} is a search: leave it out")
    from autovae.search.plan import plan_rows
    from autovae.search.run import Run
    from autovae.search.study import load_study
    from autovae.terminal import live_progress

    loaded = load_study(study)
    if plan:
        _print_plan(plan_rows(loaded, trials), json)
        return
    with live_progress(loaded.name) as on_progress:
        job = Run(loaded, results, dataset, data, trials, device, on_progress)
        for note in job.notes:
            on_progress.phase(note)
        try:
            job.execute()
        except KeyboardInterrupt:
            kept = f"{job.finished_count()} finished trials are kept in {job.folder.path}"
            typer.echo(f"\nstopped; {kept}; run the same command again to resume", err=True)
            raise typer.Exit(130) from None
        on_progress.phase("report")
        from autovae.report.html import build_report

        report_path = build_report(job.folder.path, job.data)
    summary = job.folder.read_json("summary.json") or {}
    winner = job.folder.path / "winners" / "1"
    if json:
        _emit({**summary, "report": report_path, "winner_folder": winner, "trials": job.finished_count()})
        return
    typer.echo(f"{job.finished_count()} trials finished, {job.added} of them now" if job.added else "nothing to add")
    typer.echo(summary.get("sentence", ""))
    typer.echo(f"report   {report_path}")
    typer.echo(f"winner   {winner}")


def _print_plan(rows: list[tuple[str, str]], json: bool) -> None:
    if json:
        _emit(dict(rows))
        return
    for name, value in rows:
        typer.echo(f"{name:<14}{value}")


def _reproduce(
    study: str, full: bool, plan: bool, results: Path, data: Path | None, device: str | None, json: bool
) -> None:
    """`run` of a study of kind "reproduction"."""
    from autovae.reproductions.files import load_reproduction
    from autovae.terminal import live_progress

    loaded = load_reproduction(study, full)
    if plan:
        _print_plan(loaded.plan_rows(), json)
        return
    from autovae.reproductions.run import run_reproduction

    with live_progress(loaded.name) as on_progress:
        try:
            summary = run_reproduction(loaded, results, data, device, on_progress.phase)
        except KeyboardInterrupt:
            typer.echo("\nstopped; finished steps are kept; run the same command again to resume", err=True)
            raise typer.Exit(130) from None
    if json:
        _emit(summary)
        return
    typer.echo(summary["sentence"])
    typer.echo(f"table    {Path(summary['results']) / 'table.csv'}")
    typer.echo(f"words    {Path(summary['results']) / 'README.md'}")


@app.command()
def report(folder: Annotated[Path, typer.Argument(help="results/STUDY")], json: Json = False) -> None:
    """Rebuild report.html, importance.csv and figures/ from a results folder alone."""
    from autovae.report.html import build_report

    if not (folder / "study.toml").is_file():
        raise ValueError(
            f"{folder} is no results folder: it has no study.toml; expected a folder such as results/quickstart"
        )
    path = build_report(folder)
    _emit({"report": path}) if json else typer.echo(str(path))


@app.command()
def compare(
    folders: Annotated[list[Path], typer.Argument(help="results/STUDY, two or more.")],
    to: Annotated[
        Path | None, typer.Option("--to", help="The page; beside the first folder's report by default.")
    ] = None,
    json: Json = False,
) -> None:
    """Several studies side by side on one page, with what may be compared and what may not."""
    from autovae.report.compare import compare as compare_folders

    path = compare_folders(folders, to)
    _emit({"page": path}) if json else typer.echo(str(path))


@app.command()
def export(
    folder: Annotated[Path, typer.Argument(help="results/STUDY")],
    to: Annotated[Path, typer.Option("--to", help="Folder to write the prior to.")],
    trial: Annotated[int | None, typer.Option("--trial", help="Train this trial again and export it.")] = None,
    data: DataDir = None,
    device: Device = None,
    json: Json = False,
) -> None:
    """Write the winner (or a trial, trained again from its spec and seed) as a prior module: safetensors and a card."""
    from autovae.search.export import export_trial, export_winner

    path = export_winner(folder, to) if trial is None else export_trial(folder, trial, to, data, device)
    _emit({"prior": path}) if json else typer.echo(f"prior    {path}")


@app.command()
def sample(
    prior: PriorFolder,
    number: Annotated[int, typer.Option("-n", "--number", min=1, help="How many samples.")] = 64,
    to: Annotated[Path, typer.Option("--to", help="A picture (.png, .svg, .pdf), or numbers (.npz, .csv).")] = Path(
        "samples.png"
    ),
    seed: Seed = 0,
    json: Json = False,
) -> None:
    """Draw from a prior: E[x|z] of latents z ~ p(z), as a picture or as numbers."""
    from autovae.report.samples import draw, write_samples

    x = draw(prior, number, seed)
    path = write_samples(x, to)
    _emit({"to": path, "shape": list(x.shape)}) if json else typer.echo(f"{number} samples in {path}")


@app.command()
def score(
    prior: PriorFolder,
    source: Annotated[str, typer.Argument(metavar="DATA", help="A data set's name, an .npz, a folder of images.")],
    split: Annotated[str, typer.Option("--split", help="train, validation or test.")] = "test",
    samples: Annotated[int, typer.Option("-k", "--samples", min=1, help="Importance samples a point.")] = 5000,
    points: Annotated[int | None, typer.Option("--points", min=2, help="Only the first points.")] = None,
    to: Annotated[Path | None, typer.Option("--to", help="Write a row a point to this .csv.")] = None,
    data: DataDir = None,
    seed: Seed = 0,
    json: Json = False,
) -> None:
    """log p(x) of data under a saved VAE, with its errors: the mass of each level's bin, by importance sampling."""
    from autovae.export.scoring import score_folder

    result, bits = score_folder(prior, source, data, split, samples, points, seed)
    if to is not None:
        from autovae.files import write_text

        header = "point,log_p,monte_carlo_error,effective_samples,pareto_shape"
        columns = (result.per_point, result.monte_carlo, result.effective_samples, result.pareto)
        rows = zip(*(column.tolist() for column in columns), strict=True)
        lines = [header, *(",".join([str(place), *(f"{v:.6g}" for v in row)]) for place, row in enumerate(rows))]
        write_text(to, "\n".join(lines) + "\n")
    if json:
        _emit({**result.to_dict(), "bits_per_dimension": bits, **({"to": to} if to else {})})
        return
    typer.echo(f"{result}\n{bits:.4f} bits per dimension{f'; a row a point in {to}' if to else ''}")


@app.command()
def reason(
    prior: PriorFolder,
    image: Annotated[
        str, typer.Option("--image", help="NAME:NUMBER (digits:3, mine.npz:0), or a picture of its size.")
    ],
    hide: Annotated[
        str | None, typer.Option("--hide", help="Paint in this side: left, right, top or bottom; else denoise.")
    ] = None,
    noise: Annotated[float, typer.Option("--noise", help="Standard deviation with which the image is measured.")] = 0.1,
    method: Annotated[str, typer.Option("--method", help="hmc, mean_field, mgvi, geovi, map, sir, rejection.")] = "hmc",
    draws: Annotated[int | None, typer.Option("--draws", min=2, help="Draws of the method (a chain).")] = None,
    to: Annotated[Path, typer.Option("--to", help="The picture: image, what was seen, mean answer, answers.")] = Path(
        "answer.png"
    ),
    data: DataDir = None,
    seed: Seed = 0,
    json: Json = False,
) -> None:
    """Ask a prior about a damaged image: denoise it, or paint in what is hidden. No training.

    `autovae reason results/quickstart/winners/1 --image digits:3 --hide right`
    """
    from autovae.reproductions.ask_image import ask_image

    values = ask_image(prior, image, hide, noise, method, draws, seed, to, data)
    if json:
        _emit(values)
        return
    for name, value in values.items():
        typer.echo(f"{name:<18}{value:.4g}" if isinstance(value, float) else f"{name:<18}{value}")


@app.command()
def beliefs(
    landscape: Annotated[
        tuple[str, str] | None,
        typer.Option("--landscape", metavar="POSTERIOR PRIOR", help="Draw KL over loc and scale."),
    ] = None,
    to: Annotated[Path, typer.Option("--to", help="Where the landscape is drawn: .png, .svg or .pdf.")] = Path(
        "landscape.png"
    ),
    json: Json = False,
) -> None:
    """The table of posterior and prior families, and how each divergence is computed.

    `autovae beliefs --landscape logistic normal --to kl.png` draws KL(q || p) over location and log scale.
    """
    from autovae.report.beliefs import belief_lines, belief_rows, draw_landscape

    if landscape is not None:
        path = draw_landscape(*landscape, to)
        _emit({"to": path}) if json else typer.echo(f"KL({landscape[0]} || {landscape[1]}) in {path}")
        return
    if json:
        _emit({"pairs": belief_rows()})
        return
    for line in belief_lines():
        typer.echo(line)


@app.command()
def datasets(data: DataDir = None, json: Json = False) -> None:
    """The named data sets: shape, points, support, where they come from, and whether they are here."""
    from autovae.data.catalogue import catalogue

    rows = catalogue(data)
    if json:
        _emit({"datasets": rows})
        return
    for row in rows:
        shape, points = "x".join(map(str, row["shape"])), "+".join(f"{n:,}" for n in row["points"])
        here = "here" if row["present"] else "absent"
        levels = f"{row['support']}, {row['levels']} levels"
        typer.echo(f"{row['name']:<24}{shape:<10}{points:<22}{levels:<20}{here:<8}{row['origin']}")
    typer.echo(
        "\nYour own: an .npz with `x` (and `y`, `mask`, `length`, `levels`), or a folder of images, as --dataset PATH"
    )


@app.command()
def bench(
    name: Annotated[str, typer.Argument(help="training, nll, divergences, importance or hmc.")],
    rounds: Annotated[int, typer.Option("--rounds", min=1, help="Interleaved rounds; ratios are their medians.")] = 5,
    device: Device = None,
    json: Json = False,
) -> None:
    """Measure against the peers that are installed: ratios above 1 are faster than the peer.

    Peers come with `pip install 'autovae[bench]'`; one that is missing gives null and how to install it.
    """
    from autovae.reproductions.benches import run_bench

    values = run_bench(name, rounds, device)
    if json:
        _emit(values)
        return
    for key, value in values.items():
        typer.echo(f"{key:<32}{value:.3f}" if isinstance(value, float) else f"{key:<32}{value}")


def main(arguments: list[str] | None = None) -> int:
    """The entry point; returns the exit code."""
    try:
        app(args=arguments, prog_name="autovae", standalone_mode=True)
    except SystemExit as stop:
        return int(stop.code or 0) if not isinstance(stop.code, str) else 2
    except KeyboardInterrupt:
        typer.echo("\nstopped", err=True)
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (ValueError, OSError, ArithmeticError) as error:
        if os.environ.get("AUTOVAE_TRACEBACK"):
            raise
        typer.echo(f"autovae: {' '.join(str(error).split())}", err=True)
        return 2
    return 0


def entry() -> None:
    """For the installed script."""
    sys.exit(main())


if __name__ == "__main__":
    entry()
