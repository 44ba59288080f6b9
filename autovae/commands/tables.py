"""Commands that print tables: beliefs, datasets, bench."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from autovae.commands.options import DataDir, Device, Json, emit

__all__ = ["beliefs", "datasets", "bench"]


def beliefs(
    landscape: Annotated[
        tuple[str, str] | None,
        typer.Option("--landscape", metavar="POSTERIOR PRIOR", help="Draw KL over loc and scale."),
    ] = None,
    to: Annotated[Path, typer.Option("--to", help="File of the landscape: .png, .svg or .pdf.")] = Path(
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
        emit({"to": path}) if json else typer.echo(f"KL({landscape[0]} || {landscape[1]}) in {path}")
        return
    if json:
        emit({"pairs": belief_rows()})
        return
    for line in belief_lines():
        typer.echo(line)


def datasets(data: DataDir = None, json: Json = False) -> None:
    """The named data sets: shape, points, support, origin, and whether they are present."""
    from autovae.data.catalogue import catalogue

    rows = catalogue(data)
    if json:
        emit({"datasets": rows})
        return
    for row in rows:
        shape, points = "x".join(map(str, row["shape"])), "+".join(f"{n:,}" for n in row["points"])
        here = "here" if row["present"] else "absent"
        levels = f"{row['support']}, {row['levels']} levels"
        typer.echo(f"{row['name']:<24}{shape:<10}{points:<22}{levels:<20}{here:<8}{row['origin']}")
    typer.echo(
        "\nYour own: an .npz with `x` (and `y`, `mask`, `length`, `levels`), or a folder of images, as --dataset PATH"
    )


def bench(
    name: Annotated[str, typer.Argument(help="training, rate, conv, overhead, nll, divergences, importance or hmc.")],
    rounds: Annotated[int, typer.Option("--rounds", min=1, help="Interleaved rounds; ratios are their medians.")] = 5,
    device: Device = None,
    json: Json = False,
) -> None:
    """Measure against the peers that are installed: ratios above 1 are faster than the peer.

    Peers come with `pip install 'autovae[bench]'`; a missing peer gives null and a line on how to install it.
    """
    from autovae.bench.table import run_bench

    values = run_bench(name, rounds, device)
    if json:
        emit(values)
        return
    for key, value in values.items():
        typer.echo(f"{key:<32}{value:.3f}" if isinstance(value, float) else f"{key:<32}{value}")
