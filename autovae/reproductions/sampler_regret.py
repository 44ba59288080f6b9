r"""How good are the samplers at finding the best belief? Replays on a complete table of beliefs, without training.

The table (`belief_bench_digits_v1`) holds every belief of its space over several seeds, so the true mean m(b) of each
belief and the optimum m* are known. A replay asks a sampler for T beliefs and answers each with the score of a random seed,
as a study would see it. The study would name the belief with the best mean so far; its simple regret is

    r_T = m(b_T) - m*,        in bits per dimension, over R replays with their standard error

Two yardsticks: `random` in expectation, and `noise`, the standard deviation between seeds of one belief: two beliefs
that differ by less cannot be told apart by one training each. The table's exact variance decomposition (fANOVA over the
uniform distribution on the space's beliefs) is written too, with a forest's estimates from 64 and 256 random trials.
References: Eggensperger, Hutter, Hoos and Leyton-Brown, Efficient benchmarking of hyperparameter optimizers via surrogates,
2015 (replays on a table); Hutter, Hoos and Leyton-Brown, An efficient approach for assessing hyperparameter importance, 2014.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import torch
from matplotlib.figure import Figure

from autovae.report.importance import exact_importance, importance_of
from autovae.report.record import read_record
from autovae.report.theme import COLOURS, SERIES, new_figure, style
from autovae.reproductions.notebook import Notebook, markdown_table
from autovae.reproductions.settings import RegretSettings
from autovae.search.files import validated
from autovae.search.parameters import Pairings
from autovae.search.samplers import SAMPLERS, Question
from autovae.search.space import Space, load_space
from autovae.seeds import stream_seed

__all__ = ["Table", "replay", "run"]

AXES = ("posterior", "prior", "likelihood", "alpha")
Belief = tuple[
    tuple[tuple[str, str, float], ...], str, float
]  # (posterior, prior, share) of each pair; likelihood; alpha


class Table:
    """A complete table of beliefs: the scores of each over its seeds."""

    def __init__(self, rows: Sequence[Mapping[str, Any]]) -> None:
        scores: dict[Belief, list[float]] = defaultdict(list)
        for row in rows:
            if row["state"] == "COMPLETE":
                scores[_belief(row)].append(float(row["score"]))
        self.scores = {belief: np.array(values) for belief, values in scores.items()}
        self.means = {belief: float(values.mean()) for belief, values in self.scores.items()}
        self.best = min(self.means, key=lambda belief: self.means[belief])

    @property
    def noise(self) -> float:
        """The standard deviation between seeds of one belief, pooled over beliefs."""
        spread = [values.var(ddof=1) for values in self.scores.values() if len(values) > 1]
        return math.sqrt(float(np.mean(spread)))

    def regret(self, belief: Belief) -> float:
        return self.means[belief] - self.means[self.best]

    @classmethod
    def read(cls, path: Path) -> Table:
        """The table of a results folder. Raises `ValueError` with the command that makes a missing one."""
        if not (path / "trials.csv").is_file():
            raise ValueError(f"{path} holds no trials.csv; make the table first: autovae run {path.name}")
        return cls(read_record(path).complete)

    def words(self, belief: Belief) -> str:
        """A belief as a reader writes it."""
        pairs, likelihood, alpha = belief
        shares = [f"{q}|{p}" + (f" ({100 * share:.0f} %)" if share < 1 else "") for q, p, share in pairs]
        return f"{' + '.join(shares)}, {likelihood}, alpha {alpha:g}"


def _belief(row: Mapping[str, Any]) -> Belief:
    sides = [(side,) if isinstance(side, str) else tuple(side) for side in (row["posterior"], row["prior"])]
    size = max(map(len, sides))
    counts = Counter(zip(*(side * size if len(side) == 1 else side for side in sides), strict=True))
    pairs = tuple(sorted((q, p, count / size) for (q, p), count in counts.items()))
    return pairs, row["likelihood"], float(row["alpha"])


def replay(table: Table, space: Space, sampler: str, trials: int, startup: int, seed: int) -> np.ndarray:
    """The regret of the belief that would be named after each of `trials` trials of one search."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    name, *share = sampler.split(", ")
    study = optuna.create_study(direction="minimize")
    rng = np.random.default_rng(seed)
    question = Question(seed, seed, space, startup)
    ask, at_random = SAMPLERS[name](question), SAMPLERS["random"](question)
    seen: dict[Belief, list[float]] = defaultdict(list)
    regrets = []
    for number in range(trials):
        study.sampler = at_random if share and number % 3 == 2 else ask
        trial = study.ask()
        settings = space.suggest(trial)
        belief = _belief({"alpha": 1.0, "likelihood": table.best[1], **space.fixed, **settings})
        value = float(rng.choice(table.scores[belief]))
        study.tell(trial, value)
        seen[belief].append(value)
        named = min(seen, key=lambda b: float(np.mean(seen[b])))
        regrets.append(table.regret(named))
    return np.array(regrets)


def run(settings: RegretSettings, notebook: Notebook, data_dir: Path | None, device: torch.device) -> dict[str, Any]:
    """Replay every sampler, write regrets, decomposition, figure and README; the summary."""
    path = notebook.path.parent / settings.table
    table, space = Table.read(path), load_space(settings.space)
    if space.size != len(table.means):
        raise ValueError(
            f"{path} holds {len(table.means)} beliefs, the space {settings.space} has {space.size}; finish the table "
            f"first: autovae run {settings.table}"
        )
    found: dict[str, np.ndarray] = {}
    for sampler, encoding in itertools.product(settings.samplers, settings.encodings or [""]):
        name = f"{sampler}, {encoding}" if encoding else sampler

        def compute(sampler: str = sampler, encoding: str = encoding, name: str = name) -> dict[str, Any]:
            here = _encoded(space, encoding) if encoding else space
            curves = []
            for number in range(settings.replays):
                seed = stream_seed(settings.seed, "replay", sampler, number) % 2**32
                curves.append(replay(table, here, sampler, settings.trials, settings.startup, seed).tolist())
                notebook.say(f"{name}: replay {number + 1}/{settings.replays}")
            return {"curves": curves}

        found[name] = np.array(notebook.once(f"replays of {name}", compute)["curves"])
    marks = sorted({settings.trials // 4, settings.trials // 2, settings.trials})
    rows: list[dict[str, Any]] = [
        {
            "sampler": sampler,
            **{f"regret_{mark}": round(float(curves[:, mark - 1].mean()), 5) for mark in marks},
            **{f"error_{mark}": round(_error(curves[:, mark - 1]), 5) for mark in marks},
            "found_optimum": round(float((curves[:, -1] == 0).mean()), 3),
        }
        for sampler, curves in found.items()
    ]
    notebook.write_table("table.csv", rows)
    exact = [] if settings.encodings else _decomposition(path, settings.seed)
    if exact:
        notebook.write_table("decomposition.csv", exact)
    notebook.write_figure("regret.png", _figure(found, table.noise))
    best = min(rows, key=lambda row: row[f"regret_{marks[-1]}"])
    sentence = (
        f"After {settings.trials} trials of {space.size} beliefs, {best['sampler']} names a belief "
        f"{best[f'regret_{marks[-1]}']:.4f} +- {best[f'error_{marks[-1]}']:.4f} bits per dimension above the best "
        f"({settings.replays} replays){_random(rows, marks[-1])}; one seed differs from another by {table.noise:.4f}"
    )
    notebook.write_readme(_words(settings, table, rows, exact, sentence))
    return {"rows": rows, "sentence": sentence}


def _encoded(space: Space, encoding: str) -> Space:
    """The space with its shares in another encoding."""
    pairing = space.parameters.get("pairing")
    if not isinstance(pairing, Pairings):
        raise ValueError(f"encodings are for spaces of shares; {space.name} has no parameters.pairing")
    return space.replace("pairing", validated(Pairings, {**pairing.model_dump(), "encoding": encoding}, "encodings"))


def _error(values: np.ndarray) -> float:
    return float(values.std(ddof=1) / math.sqrt(len(values)))


def _random(rows: Sequence[Mapping[str, Any]], mark: int) -> str:
    """What random search reaches, its best encoding where there are several."""
    own = [row for row in rows if row["sampler"].split(", ")[0] == "random"]
    if not own:
        return ""
    row = min(own, key=lambda row: row[f"regret_{mark}"])
    return f"; {row['sampler']} search {row[f'regret_{mark}']:.4f} +- {row[f'error_{mark}']:.4f}"


def _decomposition(path: Path, seed: int) -> list[dict[str, Any]]:
    """Exact shares of variance, and those of a forest that saw 64 or 256 of the table's trials."""
    rows = [{k: row[k] for k in (*AXES, "score")} for row in read_record(path).complete]
    space: dict[str, Any] = {"parameters": {"pair": {}}}
    exact = exact_importance(rows, space)
    names = [axis.name for axis in exact.axes]
    rng = np.random.default_rng(seed)
    guesses = {}
    for count in (64, 256):
        drawn = [rows[place] for place in rng.permutation(len(rows))[:count]]
        guesses[count] = importance_of(drawn, space, seed, resamples=2)
    table = []
    for a in range(len(names)):
        for b in range(a, len(names)):
            value = exact.main[a] if a == b else exact.pairs[a, b]
            row = {"axis": names[a], "with_axis": "" if a == b else names[b], "exact": round(float(value), 4)}
            for count, guess in guesses.items():
                found = [axis.name for axis in guess.axes]
                if names[a] in found and names[b] in found:
                    place = (found.index(names[a]), found.index(names[b]))
                    row[f"forest_{count}"] = round(float(guess.values[place]), 4)
            table.append(row)
    return sorted(table, key=lambda row: -row["exact"])


def _figure(found: Mapping[str, np.ndarray], noise: float) -> Figure:
    with style():
        figure = new_figure(3.2, 5.2)
        axes = figure.subplots()
        for colour, (sampler, curves) in zip([*SERIES, COLOURS["ink"]] * 2, found.items(), strict=False):
            trials = np.arange(1, curves.shape[1] + 1)
            mean, error = curves.mean(0), curves.std(0, ddof=1) / math.sqrt(len(curves))
            axes.plot(trials, mean, label=sampler, color=colour, lw=1.3)
            axes.fill_between(trials, mean - error, mean + error, color=colour, alpha=0.15, linewidth=0)
        axes.axhline(noise, color=COLOURS["muted"], lw=0.8, ls=":", label="one seed against another")
        axes.set_xlabel("trials")
        axes.set_ylabel("regret, bits per dimension")
        axes.set_yscale("log")
        axes.legend()
    return figure


def _words(
    settings: RegretSettings,
    table: Table,
    rows: Sequence[Mapping[str, Any]],
    exact: Sequence[Mapping[str, Any]],
    text: str,
) -> str:
    marks = [int(key.removeprefix("regret_")) for key in rows[0] if key.startswith("regret_")]
    heads = ["sampler", *(f"regret after {mark}" for mark in marks), "found the optimum"]
    cells = [
        [
            row["sampler"],
            *(f"{row[f'regret_{mark}']:.4f} ± {row[f'error_{mark}']:.4f}" for mark in marks),
            f"{100 * row['found_optimum']:.0f} %",
        ]
        for row in rows
    ]
    return (
        f"# Samplers on a complete table of beliefs\n\n{text}.\n\n{markdown_table(heads, cells)}\n\n"
        "Regret: the true mean of the belief that a study would name after so many trials, minus that of the best belief, in "
        f"bits per dimension, with its standard error over {settings.replays} replays. The best of the "
        f"{len(table.means)} beliefs is {table.words(table.best)} "
        f"({table.means[table.best]:.4f} bits per dimension on validation, mean of {len(table.scores[table.best])} seeds: "
        "the best of many is slightly optimistic).\n\n"
        "![regret](figures/regret.png)\n" + (_shares(exact) if exact else "")
    )


def _shares(exact: Sequence[Mapping[str, Any]]) -> str:
    """The exact decomposition as a table in words."""
    cells = [
        (
            f"{row['axis']} x {row['with_axis']}" if row["with_axis"] else row["axis"],
            f"{row['exact']:.3f}", row.get("forest_64", "-"), row.get("forest_256", "-"),
        )
        for row in exact
    ]  # fmt: skip
    found = markdown_table(("axis", "exact share", "forest, 64 trials", "forest, 256 trials"), cells)
    return (
        f"\n## Which belief mattered, exactly\n\n{found}\n\n"
        "Shares of the variance of the table's means, and a forest's estimates from a few random trials: they show how far "
        "to trust the importance report of a small study.\n"
    )
