"""Commands on studies and their results: run, report, restore, compare, export."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from autovae.commands.cluster import Storage, devices_of, run_workers
from autovae.commands.options import DataDir, Device, Json, Results, emit

__all__ = ["run", "report", "restore", "compare", "export"]


def run(
    study: Annotated[str, typer.Argument(help="A study by name (see studies/) or the path of a .toml file.")],
    plan: Annotated[bool, typer.Option("--plan", help="Print the plan without running it.")] = False,
    dataset: Annotated[
        str | None, typer.Option("--dataset", help="Instead of the study's: a name, an .npz, a folder of images.")
    ] = None,
    trials: Annotated[
        int | None, typer.Option("--trials", min=1, help="Finished trials of the study in total.")
    ] = None,
    full: Annotated[
        bool, typer.Option("--full", help="The full setting of a reproduction, for a GPU, instead of the short one.")
    ] = False,
    workers: Annotated[
        int | None, typer.Option("--workers", min=1, help="Processes on this machine that share the work.")
    ] = None,
    devices: Annotated[
        str | None, typer.Option("--devices", metavar="0,1", help="GPUs of this machine, a worker each.")
    ] = None,
    storage: Storage = None,
    log: Annotated[
        str | None, typer.Option("--log", help="Report every trial to a tracker: tensorboard, mlflow or wandb.")
    ] = None,
    results: Results = Path("results"),
    data: DataDir = None,
    device: Device = None,
    json: Json = False,
) -> None:
    """Run or resume a study; the same command again continues where it stopped.

    `autovae run quickstart` searches pairs of families and likelihoods on scikit-learn's digits.
    `autovae run quickstart --dataset my.npz` does the same on an array `x` of your own.
    `autovae run iwae_mnist` runs a published experiment again: `--full` in its full setting.
    `autovae run mnist_pairing_v1 --workers 4` shares the work among four processes; see `autovae worker` for many machines.
    """
    from autovae.reproductions.files import is_reproduction

    if is_reproduction(study):
        if dataset is not None or trials is not None:
            raise ValueError("--dataset and --trials are for searches; a reproduction sets both in its study file")
        if workers is not None or storage is not None or devices is not None:
            raise ValueError("--workers, --devices and --storage are for searches; a reproduction runs in one process")
        if log is not None:
            raise ValueError("--log reports the trials of a search; leave it out")
        _reproduce(study, full, plan, results, data, device, json)
        return
    if full:
        raise ValueError(f"--full is for reproductions; {study} is a search: leave it out")
    places = devices_of(devices) if devices is not None else []
    if places:
        if device is not None:
            raise ValueError("--devices gives every worker its device; leave out --device")
        workers = workers or len(places)
    if log is not None and (workers is not None or storage is not None):
        raise ValueError("--log reports the trials of one process; leave out --workers and --storage")
    from autovae.progress import live_progress
    from autovae.search.plan import plan_rows, time_row
    from autovae.search.run import Run
    from autovae.search.study import load_study

    loaded = load_study(study)
    if plan:
        _print_plan([*plan_rows(loaded, trials), time_row(loaded, dataset, data, trials, device)], json)
        return
    with live_progress(loaded.name) as on_progress:
        job = Run(loaded, results, dataset, data, trials, device, on_progress)
        for note in job.notes:
            on_progress.phase(note)
        told = len(job.notes)
        if log is not None:
            from autovae.search.events import logger

            job.on_event = logger(log, job.folder.path, job.study.name)
        try:
            if workers is None and storage is None:
                job.execute()
            else:
                same = {
                    "--dataset": dataset,
                    "--trials": trials,
                    "--data": data,
                    "--device": device,
                }
                arguments = [study, "--results", str(results)]
                arguments += [text for key, value in same.items() if value is not None for text in (key, str(value))]
                run_workers(job, arguments, workers or 1, storage, on_progress, devices=places)
        except KeyboardInterrupt:
            kept = f"{job.finished_count()} finished trials are kept in {job.folder.path}"
            typer.echo(f"\nstopped; {kept}; run the same command again to resume", err=True)
            raise typer.Exit(130) from None
        for note in job.notes[told:]:
            on_progress.phase(note)
        on_progress.phase("report")
        from autovae.report.html import build_report

        report_path = build_report(job.folder.path, job.data)
    summary = job.folder.read_json("summary.json") or {}
    winner = job.folder.path / "winners" / "1"
    if json:
        emit({**summary, "report": report_path, "winner_folder": winner, "trials": job.finished_count()})
        return
    typer.echo(f"{job.finished_count()} trials finished, {job.added} of them now" if job.added else "nothing to add")
    typer.echo(summary.get("sentence", ""))
    typer.echo(f"report   {report_path}")
    typer.echo(f"winner   {winner}")


def _print_plan(rows: list[tuple[str, str]], json: bool) -> None:
    if json:
        emit(dict(rows))
        return
    for name, value in rows:
        typer.echo(f"{name:<14}{value}")


def _reproduce(
    study: str, full: bool, plan: bool, results: Path, data: Path | None, device: str | None, json: bool
) -> None:
    """`run` of a study of kind "reproduction"."""
    from autovae.progress import live_progress
    from autovae.reproductions.files import load_reproduction

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
        emit(summary)
        return
    typer.echo(summary["sentence"])
    typer.echo(f"table    {Path(summary['results']) / 'table.csv'}")
    typer.echo(f"words    {Path(summary['results']) / 'README.md'}")


def report(folder: Annotated[Path, typer.Argument(help="results/STUDY")], json: Json = False) -> None:
    """Rebuild report.html, importance.csv and figures/ from a results folder."""
    from autovae.report.html import build_report

    if not (folder / "study.toml").is_file():
        raise ValueError(
            f"{folder} is not a results folder: it has no study.toml; expected a folder such as results/quickstart"
        )
    path = build_report(folder)
    emit({"report": path}) if json else typer.echo(str(path))


def restore(
    folder: Annotated[Path, typer.Argument(help="results/STUDY, as published: tables and cards without weights.")],
    data: DataDir = None,
    device: Device = None,
    json: Json = False,
) -> None:
    """Retrain winner, baseline and learned priors of a published study, and rebuild its report.

    Published results have no weights. The best seed of each model is trained from its spec, and its new score is compared
    with the published one. `autovae restore results/mnist_pairing_v1`
    """
    from autovae.progress import live_progress
    from autovae.report.html import build_report
    from autovae.search.restore import restore as restore_models

    with live_progress(folder.name) as on_progress:
        rows, points = restore_models(folder, data, device, lambda event: _say_epoch(event, on_progress))
    build_report(folder, points)
    if json:
        emit({"models": rows})
        return
    for row in rows:
        typer.echo(
            f"{row['model']:<18}{row['belief']}, seed {row['seed']}: {row['published']:.4f} bits per dimension as published, "
            f"{row['now']:.4f} now"
        )


def _say_epoch(event: Any, on_progress: Any) -> None:
    if event.kind == "epoch":
        on_progress.phase(f"epoch {event.epoch} of {len(event.members)} models, {event.seconds:.1f} s")


def compare(
    folders: Annotated[list[Path], typer.Argument(help="results/STUDY, two or more.")],
    to: Annotated[
        Path | None, typer.Option("--to", help="The page; next to the first folder's report by default.")
    ] = None,
    json: Json = False,
) -> None:
    """Show several studies on one page, with valid comparisons only."""
    from autovae.report.compare import compare as compare_folders

    path = compare_folders(folders, to)
    emit({"page": path}) if json else typer.echo(str(path))


def export(
    folder: Annotated[Path, typer.Argument(help="results/STUDY")],
    to: Annotated[Path, typer.Option("--to", help="Folder to write the prior to.")],
    trial: Annotated[int | None, typer.Option("--trial", help="Train this trial again and export it.")] = None,
    onnx: Annotated[bool, typer.Option("--onnx", help="Also write the decoder as decoder.onnx (extra onnx).")] = False,
    data: DataDir = None,
    device: Device = None,
    json: Json = False,
) -> None:
    """Write the winner (or a retrained trial) as a prior module: safetensors and a card."""
    from autovae.search.export import export_trial, export_winner

    path = export_winner(folder, to) if trial is None else export_trial(folder, trial, to, data, device)
    written: dict[str, Path] = {"prior": path}
    if onnx:
        from autovae.export.card import load_prior
        from autovae.export.onnx import write_onnx

        written["onnx"] = write_onnx(load_prior(path), path / "decoder.onnx")
    if json:
        emit(written)
        return
    for name, place in written.items():
        typer.echo(f"{name:<9}{place}")
