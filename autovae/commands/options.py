"""Options shared by commands, and their output: text, or one JSON object with --json."""

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
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output, the rest on stderr.")]
Seed = Annotated[int, typer.Option("--seed", min=0, help="Seed of the draws.")]
Device = Annotated[str | None, typer.Option("--device", help="cpu, cuda or cuda:N; the GPU if there is one.")]
PriorFolder = Annotated[Path, typer.Argument(help="A saved prior, such as results/quickstart/winners/1.")]

Source = Annotated[
    str, typer.Option("--source", help="prior, or an ex-post density kept in the folder (flow, mixture).")
]


def say(text: str, json: bool = False) -> None:
    """Print text, on standard error if standard output holds JSON."""
    typer.echo(text, err=json)


def emit(values: dict[str, Any]) -> None:
    """Print the one JSON object of --json."""
    typer.echo(json_format.dumps(values, indent=2, default=str))
