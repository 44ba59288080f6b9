"""Options that several commands share, and how a command speaks: words for people, one JSON object for programs."""

from __future__ import annotations

import json as json_format
from pathlib import Path
from typing import Annotated, Any

import typer

__all__ = ["DataDir", "Device", "Json", "PriorFolder", "Results", "Seed", "Source", "emit", "say"]

DataDir = Annotated[
    Path | None, typer.Option("--data", help="Folder with data sets; else $AUTOVAE_DATA, else the user cache.")
]
Results = Annotated[Path, typer.Option("--results", help="Folder for results.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output, all else on stderr.")]
Seed = Annotated[int, typer.Option("--seed", min=0, help="Seed of the draws.")]
Device = Annotated[str | None, typer.Option("--device", help="cpu, cuda or cuda:N; the GPU if there is one.")]
PriorFolder = Annotated[Path, typer.Argument(help="A saved prior, such as results/quickstart/winners/1.")]

Source = Annotated[
    str, typer.Option("--source", help="prior, or an ex-post density kept in the folder (flow, mixture).")
]


def say(text: str, json: bool = False) -> None:
    """Words for people: on standard output, or out of JSON's way on standard error."""
    typer.echo(text, err=json)


def emit(values: dict[str, Any]) -> None:
    """The one object that --json puts on standard output."""
    typer.echo(json_format.dumps(values, indent=2, default=str))
