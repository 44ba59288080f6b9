"""Commands on an exported prior: sample, score, fidelity, reason."""

from __future__ import annotations

from pathlib import Path
from sys import stderr
from typing import Annotated

import typer

from autovae.commands.options import DataDir, Json, PriorFolder, Seed, Source, emit, say

__all__ = ["fidelity", "reason", "sample", "score"]


def _on_stderr(text: str) -> None:
    say(text, json=True)


def sample(
    prior: PriorFolder,
    number: Annotated[int, typer.Option("-n", "--number", min=1, help="How many samples.")] = 64,
    to: Annotated[Path, typer.Option("--to", help="A picture (.png, .svg, .pdf), or numbers (.npz, .csv).")] = Path(
        "samples.png"
    ),
    source: Source = "prior",
    seed: Seed = 0,
    json: Json = False,
) -> None:
    """Draw from a prior: E[x|z] of latents z ~ p(z), as a picture or as numbers."""
    from autovae.report.samples import draw, write_samples

    x = draw(prior, number, seed, source)
    path = write_samples(x, to)
    emit({"to": path, "shape": list(x.shape)}) if json else typer.echo(f"{number} samples in {path}")


def score(
    prior: PriorFolder,
    source: Annotated[str, typer.Argument(metavar="DATA", help="A data set's name, an .npz, a folder of images.")],
    split: Annotated[str, typer.Option("--split", help="train, validation or test.")] = "test",
    samples: Annotated[int, typer.Option("-k", "--samples", min=1, help="Importance samples per point.")] = 5000,
    points: Annotated[int | None, typer.Option("--points", min=2, help="Only the first points.")] = None,
    ais: Annotated[
        int | None, typer.Option("--ais", min=2, help="Annealed bounds of this many points, and of simulated ones.")
    ] = None,
    temperatures: Annotated[int, typer.Option("--temperatures", min=1, help="Of the annealing.")] = 500,
    to: Annotated[Path | None, typer.Option("--to", help="Write a row per point to this .csv.")] = None,
    data: DataDir = None,
    seed: Seed = 0,
    json: Json = False,
) -> None:
    """log p(x) of data under a saved VAE with its errors: the mass of each level's bin, by importance sampling.

    Grey and real data also get the bits of the model's own head and of a logistic head at its means (K = 100).
    `--ais 50` bounds log p(x) from both sides by annealing, without the encoder: for up to about 50 latents.
    """
    from autovae.export.scoring import open_scored

    scored = open_scored(prior, source, data, split)
    result = scored.log_likelihood(samples, points, seed)
    bits, active, heads = scored.bits(result), scored.active_units(points), scored.heads(points=points, seed=seed)
    enclosure = None if ais is None else scored.enclose(ais, seed, temperatures=temperatures)
    if to is not None:
        from autovae.files import write_text

        header = "point,log_p,monte_carlo_error,effective_samples,pareto_shape"
        columns = (result.per_point, result.monte_carlo, result.effective_samples, result.pareto)
        rows = zip(*(column.tolist() for column in columns), strict=True)
        lines = [header, *(",".join([str(place), *(f"{v:.6g}" for v in row)]) for place, row in enumerate(rows))]
        write_text(to, "\n".join(lines) + "\n")
    if json:
        more = [part.to_dict() for part in (heads, enclosure) if part is not None]
        values = {**result.to_dict(), "bits_per_dimension": bits, "active_units": active}
        for part in more:
            values.update(part)
        emit({**values, **({"to": to} if to else {})})
        return
    typer.echo(f"{result}\n{bits:.4f} bits per dimension, {active} active units")
    for found in (heads, enclosure):
        if found is not None:
            typer.echo(str(found))
    if to is not None:
        typer.echo(f"a row a point in {to}")


def fidelity(
    folder: Annotated[
        Path, typer.Argument(help="A saved prior, or results/STUDY: winners, baseline and learned priors.")
    ],
    source: Annotated[
        str | None, typer.Argument(metavar="[DATA]", help="The data; by default those of the card.")
    ] = None,
    features: Annotated[
        str, typer.Option("--features", help="domain (a classifier of the data) or inception (images).")
    ] = "domain",
    weights: Annotated[Path | None, typer.Option("--weights", help="File with the weights of Inception.")] = None,
    fit: Annotated[
        str, typer.Option("--fit", help="Fit and keep ex-post densities first: mixture, flow, or both with a comma.")
    ] = "",
    points: Annotated[int | None, typer.Option("--points", min=10, help="At most this many points a set.")] = None,
    beliefs: Annotated[
        bool, typer.Option("--beliefs", help="Score every belief of the search, trained again, with ELBO and NLL.")
    ] = False,
    data: DataDir = None,
    seed: Seed = 0,
    json: Json = False,
) -> None:
    """FID, KID, IS, precision and recall of reconstructions and samples against real data, kept in the card.

    `autovae fidelity results/quickstart` scores all models of a study, and its next report shows them.
    With `--beliefs` every complete trial is trained again for the table of pairs and likelihoods by ELBO, NLL, IS, FID, KID.
    """
    if beliefs:
        if source is not None or fit:
            raise ValueError("--beliefs takes the study's own data and no --fit; leave both out")
        from autovae.search.belief_table import belief_lines, measure_beliefs

        rows = measure_beliefs(folder, features, weights, points, data, seed=seed, say=_on_stderr)
        if json:
            emit({"beliefs": rows})
            return
        for line in belief_lines(rows):
            typer.echo(line)
        return
    from autovae.search.fidelity import fidelity_lines, fidelity_of_folder

    result = fidelity_of_folder(folder, source, features, weights, fit, points, data, seed, _on_stderr)
    if json:
        emit(result)
        return
    for line in fidelity_lines(result):
        typer.echo(line)


def reason(
    prior: PriorFolder,
    label: Annotated[
        str | None, typer.Option("--label", help="A class of the prior's data; a classifier is trained once.")
    ] = None,
    image: Annotated[
        str | None,
        typer.Option("--image", help="NAME:NUMBER (digits:3, mine.npz:0), or a picture of the prior's size."),
    ] = None,
    hide: Annotated[
        str | None, typer.Option("--hide", help="Paint in this side: left, right, top or bottom; denoise by default.")
    ] = None,
    noise: Annotated[float, typer.Option("--noise", help="Standard deviation of the image's measurement.")] = 0.1,
    power: Annotated[
        float, typer.Option("--power", help="Weight of the label: higher gives more typical answers.")
    ] = 100,
    dataset: Annotated[
        str | None, typer.Option("--dataset", help="Labelled data instead of the prior's training data.")
    ] = None,
    judge: Annotated[
        bool, typer.Option("--judge", help="Train a second network on other points to check the answers.")
    ] = False,
    method: Annotated[str, typer.Option("--method", help="hmc, mean_field, mgvi, geovi, map, sir, rejection.")] = "hmc",
    draws: Annotated[int | None, typer.Option("--draws", min=2, help="Draws of the method (per chain).")] = None,
    source: Source = "prior",
    to: Annotated[
        Path, typer.Option("--to", help="The picture: image, measured part and mean first, then answers.")
    ] = Path("answer.png"),
    data: DataDir = None,
    seed: Seed = 0,
    json: Json = False,
) -> None:
    """Ask a prior: draw a label, denoise an image, or paint in its hidden side. The generator stays frozen.

    `autovae reason results/quickstart/winners/1 --label 3`

    `autovae reason results/quickstart/winners/1 --image digits:3 --hide right`
    """
    from autovae.export.card import load_prior
    from autovae.reasoning.evidence import Question, answer_of
    from autovae.report.samples import check_picture, write_samples

    question = Question(label, dataset, image, hide, noise, power, judge)
    check_picture(to)
    loaded, progress = load_prior(prior, source=source), not json and stderr.isatty()
    answer, shown, about = answer_of(loaded, question, method, draws, seed, data, progress, _on_stderr)
    values = {**answer.summary(), **about, "to": str(write_samples(shown.numpy(), to))}
    if json:
        emit(values)
        return
    for name, value in values.items():
        typer.echo(f"{name:<24}{value:.4g}" if isinstance(value, float) else f"{name:<24}{value}")
