"""The command line: parse, call, print. `--help` and `--version` load neither torch nor optuna nor pandas.

Bad input gives one line on standard error and exit code 2; Ctrl-C gives exit code 130 and says how to resume.
With --json, standard output holds one JSON object and nothing else.
"""

from __future__ import annotations

import errno
import os
import re
import sys
from typing import Annotated

import typer

import autovae
from autovae.commands import cluster, priors, studies, tables

__all__ = ["app", "main"]

app = typer.Typer(
    name="autovae",
    help="Search the beliefs of a variational autoencoder, see which belief mattered, export the winner as a prior.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    epilog="Start with `autovae run quickstart`, then open the report it names.",
)


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


COMMANDS = (
    studies.run,
    cluster.worker,
    cluster.dashboard,
    studies.report,
    studies.restore,
    studies.compare,
    studies.export,
    priors.sample,
    priors.score,
    priors.fidelity,
    priors.reason,
    tables.beliefs,
    tables.datasets,
    tables.bench,
)
for _command in COMMANDS:
    app.command()(_command)


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
    except Exception as error:
        expected = isinstance(error, (ValueError, OSError, ArithmeticError)) or _errno(error)
        if not expected or os.environ.get("AUTOVAE_TRACEBACK"):
            raise
        typer.echo(f"autovae: {' '.join(str(error).split())}{_remedy(error)}", err=True)
        return 2
    return 0


def _errno(error: Exception) -> int:
    """The errno behind an error, 0 without one. safetensors only gives it in its message."""
    said = re.search(r"\(os error (\d+)\)", str(error)) if type(error).__name__ == "SafetensorError" else None
    return int(said[1]) if said else getattr(error, "errno", None) or 0


def _remedy(error: Exception) -> str:
    number, text = _errno(error), str(error)
    if number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG) and "disk space" not in text:
        return "; free some disk space, then run the same command again: finished work is kept"
    if number in (errno.EROFS, errno.EACCES, errno.EPERM) and "--" not in text:
        return "; choose a folder with write permission (--results, --to, --data)"
    return ""


def entry() -> None:
    """Entry point of the installed script."""
    sys.exit(main())


if __name__ == "__main__":
    entry()
