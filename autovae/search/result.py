"""The results folder of a study: its files, the check that the study is unchanged, and atomic tables.

study.toml          the resolved study with the data's digest: compared on every run
trials.journal      Optuna's storage, an append-only log: every finished trial survives a kill
trials.csv          one row per trial, rewritten after every batch
finals.csv          finalists and baselines, one row per seed
curves.csv          the bound of winner and baseline against K and alpha
summary.json        winner, gain with interval, the verdict in words
importance.csv      fANOVA of the beliefs
winners/<rank>/, baseline/, learned_priors/<learned prior>/      saved models
report.html, figures/
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tomli_w
from optuna.trial import FrozenTrial

from autovae.files import write_text
from autovae.registry import LIKELIHOODS
from autovae.renames import renamed
from autovae.search.files import read_toml

if TYPE_CHECKING:
    from autovae.data.datasets import Data

__all__ = ["DUPLICATE", "FORMAT", "ResultsError", "ResultsFolder", "counted", "differences", "trial_rows"]

FORMAT = 1
DUPLICATE = "duplicate_of"  # attribute of a trial with an already trained belief: the trial that trained it


class ResultsError(ValueError):
    """An unusable results folder: the reason and the remedy."""


class ResultsFolder:
    """results/<study>/ and its files."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def journal(self) -> Path:
        return self.path / "trials.journal"

    @property
    def study_file(self) -> Path:
        return self.path / "study.toml"

    def open(self, identity: Mapping[str, Any], trials: int) -> None:
        """Create the folder of a study, or check that it is this study's. Raises `ResultsError` and changes nothing."""
        stored = _plain({"format": FORMAT, **identity})
        # checked before study.toml: another worker may write it, and then the rest, between the two checks
        strangers = self.path.is_dir() and any(not _begun(entry) for entry in self.path.iterdir())
        if self.study_file.is_file():
            before = read_toml(self.study_file)
            before.pop("trials", None)
            before = with_old_defaults(before)
            if before.get("format") != FORMAT:
                raise ResultsError(
                    f"{self.path} has results format {before.get('format')!r}, this version writes {FORMAT}; "
                    "use --results with another folder, or the version that wrote it"
                )
            changes = list(differences(before, stored))
            if changes:
                raise ResultsError(
                    f"{self.path} holds results of another study ({'; '.join(changes[:4])}"
                    f"{'; ...' if len(changes) > 4 else ''}); a study with results is not edited: copy the study file "
                    "under a new name, or use --results with another folder"
                )
        elif strangers:
            raise ResultsError(f"{self.path} is not empty and has no study.toml; use --results with another folder")
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            write_text(self.study_file, tomli_w.dumps({**stored, "trials": trials}))
        except OSError as error:
            raise ResultsError(
                f"cannot write to {self.path}: {error.strerror or error}; use --results with a folder you may write to"
            ) from None

    def write_table(self, name: str, rows: Sequence[Mapping[str, Any]]) -> Path:
        """A CSV of dictionaries, atomically; columns in order of first occurrence, no newlines inside cells."""
        columns = list(dict.fromkeys(key for row in rows for key in row))
        text = io.StringIO()
        writer = csv.DictWriter(text, columns, lineterminator="\n")
        writer.writeheader()
        for row in rows:
            writer.writerow({key: _cell(row.get(key)) for key in columns})
        return write_text(self.path / name, text.getvalue())

    def write_json(self, name: str, values: Mapping[str, Any]) -> Path:
        return write_text(self.path / name, json.dumps(values, indent=2) + "\n")

    def read_json(self, name: str) -> dict[str, Any] | None:
        path = self.path / name
        return dict(renamed(json.loads(path.read_text(encoding="utf-8")))) if path.is_file() else None

    @cached_property
    def study(self) -> dict[str, Any]:
        """The resolved study. Raises `ValueError` if there is none."""
        return read_toml(self.study_file)

    def data(self, data_dir: str | Path | None = None) -> Data:
        """The data of the study. Raises `ResultsError` if they have changed since."""
        from autovae.data.datasets import load

        about = self.study["data"]
        data = load(about.get("path") or about["name"], data_dir=data_dir, seed=self.study.get("seed", 0))
        if data.digest != about["digest"]:
            raise ResultsError(f"the data {data.name} are no longer those of the study (their digest differs)")
        return data


def _begun(entry: Path) -> bool:
    """Whether another worker of the study may have written this before study.toml."""
    return entry.name in ("workers", "tensorboard") or entry.name.startswith((".", "trials.journal"))


def _cell(value: Any) -> Any:
    if value is None:
        return ""
    if isinstance(value, float):
        return repr(value)
    return " ".join(str(value).split())


def _plain(value: Any) -> Any:
    """Values that TOML supports: no None, tuples as lists."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items() if item is not None}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value


def with_old_defaults(identity: Mapping[str, Any]) -> dict[str, Any]:
    """A resolved study with what was meant before a setting existed: training followed densities."""
    training = {"training": {"objective": "density", **identity["training"]}} if "training" in identity else {}
    return {**identity, **training}


def differences(before: Any, now: Any, place: str = "") -> Iterator[str]:
    """The differences between two nested plain values, in words."""
    if isinstance(before, dict) and isinstance(now, dict):
        for key in dict.fromkeys([*before, *now]):
            where = f"{place}.{key}" if place else key
            if key not in before or key not in now:
                had, has = (f"{side.get(key)!r}" if key in side else "nothing" for side in (before, now))
                yield f"{where}: was {had}, is {has}"
            else:
                yield from differences(before[key], now[key], where)
    elif before != now:
        yield f"{place}: was {before!r}, is {now!r}"


def counted(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """The finished trials that were trained, without duplicates."""
    return [trial for trial in trials if trial.state.is_finished() and DUPLICATE not in trial.user_attrs]


# settings always in trials.csv; others that differ between trials follow
SETTINGS = (
    "posterior",
    "prior",
    "likelihood",
    "alpha",
    "latent_dim",
    "hidden",
    "epochs",
    "learning_rate",
    "learned_prior",
)
OMITTED = ("seed", "data_seed", "saturate", "estimator")  # implied by the trial's number or its belief


def _setting(spec: Mapping[str, Any], name: str) -> Any:
    row = LIKELIHOODS.get(spec.get("likelihood", ""))
    if name == "scale" and row is not None and not row.has_scale:
        return None  # suggested, but not used
    return spec.get(name)


def _spec_of(trial: FrozenTrial) -> dict[str, Any]:
    return dict(renamed(trial.user_attrs.get("spec", {})))


def _varied(specs: Sequence[Mapping[str, Any]]) -> list[str]:
    """Settings outside SETTINGS that differ between trials."""
    names = dict.fromkeys(name for spec in specs for name in spec if name not in (*SETTINGS, *OMITTED))
    return [name for name in names if len({str(_setting(spec, name)) for spec in specs if spec} - {"None"}) > 1]


def trial_rows(trials: Sequence[FrozenTrial], also: Sequence[str] = ()) -> list[dict[str, Any]]:
    """One row per finished trial: number, state, score with error, belief, settings, seed, seconds, reason.

    `also` names further objectives; `duplicate_of` is the trial whose training a repeated belief reuses.
    """
    rows = []
    repeated = any(DUPLICATE in trial.user_attrs for trial in trials)
    names = [*SETTINGS, *_varied([_spec_of(trial) for trial in trials])]
    for trial in trials:
        if not trial.state.is_finished():
            continue
        spec = _spec_of(trial)
        rows.append(
            {
                "number": trial.number,
                "state": trial.state.name,
                "score": trial.values[0] if trial.values else None,
                "score_se": trial.user_attrs.get("standard_error"),
                **{name: _setting(spec, name) for name in names},
                "seed": spec.get("seed"),
                "seconds": trial.user_attrs.get("seconds"),
                "reason": trial.user_attrs.get("reason", ""),
                **dict(zip(also, (trial.values or ())[1:], strict=False)),
                **({"duplicate_of": trial.user_attrs.get(DUPLICATE)} if repeated else {}),
            }
        )
    return rows
