"""The riddle's tables, figures and page: figures 3 to 5, solved runs against the paper's, restarts and warnings."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure

from autovae.export.folders import machine
from autovae.report.theme import COLOURS, SERIES, new_figure, style
from autovae.reproductions.digit_modules import DigitModules
from autovae.reproductions.digit_pictures import digit_rows
from autovae.reproductions.notebook import Notebook, markdown_table
from autovae.reproductions.riddle_solving import (
    ANSWER,
    PAPER_SECONDS,
    PAPER_SOLVED,
    RESTARTS,
    WARNINGS,
    best_of,
    is_solved,
    step_name,
)
from autovae.reproductions.settings import RiddlePlan, RiddleSettings

__all__ = ["write_report"]

Found = dict[str, dict[str, Any]]


def write_report(settings: RiddleSettings, found: Found, modules: DigitModules, notebook: Notebook) -> dict[str, Any]:
    """Everything under results/<study>/; the summary for the terminal."""
    rows = [_row(plan, found[plan.name]) for plan in settings.plans]
    notebook.write_table("table.csv", rows)
    restarts = [_restarts(name, one) for name, one in found.items()]
    notebook.write_table("restarts.csv", restarts)
    warnings = [row for name, one in found.items() for row in _warnings(name, one)]
    notebook.write_table("warnings.csv", warnings)
    notebook.write_figure("riddle.png", riddle_figure())
    for name, one in found.items():
        if "curves" in one:
            notebook.write_figure(f"curves_{step_name(name)}.png", curves_figure(one))
    main = next(iter(found))
    for name, one in found.items():
        figure = answers_figure(one, failures=name == main)
        if figure is not None:
            notebook.write_figure(f"answers_{step_name(name)}.png", figure)
    sentence = _sentence(rows[0])
    notebook.write_readme(_page(settings, rows, restarts, warnings, modules, sentence, found))
    return {"rows": rows, "sentence": sentence}


def _row(plan: RiddlePlan, one: dict[str, Any]) -> dict[str, Any]:
    runs, answer = one["runs"], "-".join(map(str, ANSWER))
    solved = sum(is_solved(run) for run in runs)
    judged = sum(run["share_judge"] >= 0.5 for run in runs)
    wrong = Counter(run["reads"] for run in runs if not is_solved(run))
    as_in_paper = (plan.method, plan.optimizer, plan.digit_networks) == ("mean_field", "adam", 1) and not plan.without
    return {
        "experiment": plan.name,
        "method": plan.method,
        "without": " ".join(plan.without),
        "powers": " ".join(f"{power:g}" for power in plan.powers),
        "optimizer": plan.optimizer if plan.method == "mean_field" else "",
        "iterations_per_power": " ".join(map(str, plan.steps)),
        "digit_networks": plan.digit_networks,
        "seeds": len(runs),
        "solved": solved,
        "share_solved": round(solved / len(runs), 3),
        "error": round((solved / len(runs) * (1 - solved / len(runs)) / len(runs)) ** 0.5, 3),
        "share_solved_by_judge": round(judged / len(runs), 3),
        "share_solved_paper": PAPER_SOLVED if as_in_paper else "",
        f"accuracy_{answer}": round(sum(run["share"] for run in runs) / len(runs), 3),
        "failures_read_as": " ".join(f"{triple} x{count}" for triple, count in wrong.most_common(4)),
        "seconds": one["solving_seconds"],
        "cpu_seconds": one["solving_cpu_seconds"],
        "cpu_seconds_a_run": round(one["solving_cpu_seconds"] / len(runs), 2),
        "seconds_a_run_paper": PAPER_SECONDS if as_in_paper else "",
    }


def _restarts(name: str, one: dict[str, Any]) -> dict[str, Any]:
    def trusted(run: dict[str, Any]) -> bool:
        return not any(run[warning] for warning in WARNINGS)

    row: dict[str, Any] = {"experiment": name}
    for count in RESTARTS:
        row[f"best_of_{count}"] = round(best_of(one["runs"], count), 4)
    for count in RESTARTS[1:]:
        row[f"best_trusted_of_{count}"] = round(best_of(one["runs"], count, trusted), 4)
    return row


def _warnings(name: str, one: dict[str, Any]) -> list[dict[str, Any]]:
    rows = []
    wrong = [not is_solved(run) for run in one["runs"]]
    for warning in WARNINGS:
        said = [run[warning] for run in one["runs"]]
        caught = sum(a and b for a, b in zip(said, wrong, strict=True))
        quiet = len(said) - sum(said)
        rows.append(
            {
                "experiment": name,
                "warning": warning,
                "seeds": len(said),
                "wrong": sum(wrong),
                "warned": sum(said),
                "wrong_and_warned": caught,
                "right_and_warned": sum(said) - caught,
                "solved_where_quiet": round(1 - (sum(wrong) - caught) / quiet, 4) if quiet else "",
            }
        )
    return rows


def _sentence(row: dict[str, Any]) -> str:
    return (
        f"{row['solved']} of {row['seeds']} seeds end at 1-3-4 ({row['share_solved']:.0%} +- {row['error']:.0%}; by an "
        f"independent judge {row['share_solved_by_judge']:.0%}), in the paper 88 %; {row['cpu_seconds_a_run']:.1f} s of "
        "processor time a run, in the paper 2,400 s"
    )


# -- figures ----------------------------------------------------------------------------------------------------------


def riddle_figure() -> Figure:
    """Figure 3: the statements, and which network looks at which digit."""
    statements = (
        "I. The first number is odd.", "II. The second is two larger than the first.",
        "III. The first plus the second equal the third.", "IV. The third number is not a seven.",
        "V. It also contains no closed circles.",
    )  # fmt: skip
    with style():
        figure = new_figure(2.2, 6.4)
        text, graph = figure.subplots(1, 2, width_ratios=(1.25, 1))
        for axes in (text, graph):
            axes.set_axis_off()
        text.text(0, 0.95, "There are three numbers:", va="top", transform=text.transAxes)
        for place, line in enumerate(statements):
            text.text(0.04, 0.78 - 0.15 * place, line, va="top", transform=text.transAxes)
        levels = {"source": 0.0, "image": 1.0, "network": 2.0, "statement": 3.0}
        lines = []
        for digit, y in enumerate((4.0, 2.0, 0.0), 1):
            lines += [((levels["source"], y), (levels["image"], y)), ((levels["image"], y), (levels["network"], y))]
            _node(graph, levels["source"], y, rf"$\xi_{digit}$")
            _node(graph, levels["image"], y, rf"$x_{digit}$")
            _node(graph, levels["network"], y, rf"$p_{digit}$")
        for x, y, name in ((2.0, 5.0, "$p_o$"), (2.0, -1.0, "$p_c$")):
            lines.append(((1.0, 4.0 if y > 0 else 0.0), (x, y)))
            _node(graph, x, y, name)
        for y, name, sources in (
            (5.0, "I", (5.0,)), (3.5, "II", (4.0, 2.0)), (2.0, "III", (4.0, 2.0, 0.0)), (0.3, "IV", (0.0,)),
            (-1.0, "V", (-1.0,)),
        ):  # fmt: skip
            lines += [((2.0, source), (levels["statement"], y)) for source in sources]
            _node(graph, levels["statement"], y, name, COLOURS["first"])
        for (x0, y0), (x1, y1) in lines:
            graph.plot([x0, x1], [y0, y1], color=COLOURS["muted"], lw=0.8, zorder=1)
        graph.set(xlim=(-0.4, 3.4), ylim=(-1.6, 5.6))
    return figure


def _node(axes: Any, x: float, y: float, text: str, colour: str = COLOURS["ink"]) -> None:
    axes.text(
        x, y, text, ha="center", va="center", color=colour, zorder=3,
        bbox={"boxstyle": "circle,pad=0.25", "facecolor": "white", "edgecolor": colour, "lw": 0.8},
    )  # fmt: skip


def curves_figure(one: dict[str, Any]) -> Figure:
    """Figure 4: ELBO at the last power, and four shares, against iterations; lines where the power rises."""
    shares = {
        "score": "score", "accuracy": "accuracy", "any": "runs with any correct sample so far",
        "only": "runs with only correct ones so far",
    }  # fmt: skip
    rows = one["curves"]
    with style():
        figure = new_figure(3.6, 5.4)
        above, below = figure.subplots(2, 1, sharex=True, height_ratios=(1, 1.7))
        elbo = np.array([row["elbo"] for row in rows])
        above.plot(elbo, color=COLOURS["ink"], lw=1.2)
        above.set(ylabel="ELBO, last power")
        above.set_ylim(bottom=np.quantile(elbo, 0.1))
        for (name, label), colour in zip(shares.items(), SERIES, strict=False):
            below.plot([row[name] for row in rows], color=colour, lw=1.4, label=label)
        below.set(xlabel="iterations", ylabel="mean over seeds", ylim=(0, 1.02))
        below.legend(loc="lower left", bbox_to_anchor=(0.2, 0.06), fontsize=6.5)
        for axes in (above, below):
            for place in one["changes"][1:]:
                axes.axvline(place, color=COLOURS["muted"], lw=0.7, ls=":")
    return figure


def answers_figure(one: dict[str, Any], failures: bool) -> Figure | None:
    """Figure 5: means (first row of a block) and draws of a solved run and of runs that failed."""
    blocks: list[tuple[str, torch.Tensor]] = []
    for seed, picture in one["pictures"].items():
        run = one["runs"][int(seed)]
        images = torch.tensor(picture).float() / 255
        solved = "solved" if is_solved(run) else "failed"
        if solved == "failed" and not failures and len(blocks) >= 4:
            continue
        blocks.append((f"{seed}: {run['reads']}, {solved}", images))
    return digit_rows(blocks, columns=3) if blocks else None


# -- the page ---------------------------------------------------------------------------------------------------------


def _markdown(rows: list[dict[str, Any]], columns: dict[str, str]) -> str:
    return markdown_table(list(columns.values()), [[row[name] for name in columns] for row in rows])


def _when(one: dict[str, Any], powers: tuple[float, ...]) -> str:
    """The power at which runs commit to an answer, from the curves of a mean field."""
    if "curves" not in one:
        return ""
    ends = [*one["changes"][1:], len(one["curves"])]
    told = ", ".join(
        f"{one['curves'][end - 1]['accuracy']:.2f} at {power:g}" for power, end in zip(powers, ends, strict=True)
    )
    return f"Mean accuracy at the end of each: {told}. Runs commit to an answer where this rises, and need iterations there."


def _page(
    settings: RiddleSettings, rows: list[dict[str, Any]], restarts: list[dict[str, Any]], warnings: list[dict[str, Any]],
    modules: DigitModules, sentence: str, found: Found,
) -> str:  # fmt: skip
    cards = {task: modules.network(task).card for task in ("digit", "odd", "closed_circle")}
    networks = ", ".join(f"{task} {card['accuracy']:.1%}" for task, card in cards.items())
    judge = modules.judge().card
    main, one = rows[0], next(iter(found.values()))
    columns = {
        "experiment": "experiment", "seeds": "seeds", "share_solved": "solved", "error": "+-",
        "share_solved_by_judge": "by the judge", "share_solved_paper": "paper", "failures_read_as": "failures read as",
        "cpu_seconds_a_run": "CPU s a run",
    }  # fmt: skip
    counts = [name.removeprefix("best_of_") for name in restarts[0] if name.startswith("best_of_")]
    best = {"experiment": "experiment", **{f"best_of_{count}": f"best of {count}" for count in counts}}
    best |= {f"best_trusted_of_{count}": f"unwarned, of {count}" for count in counts[1:]}
    said = {
        "experiment": "experiment", "warning": "warning", "wrong": "wrong", "wrong_and_warned": "warned of them",
        "right_and_warned": "false alarms", "solved_where_quiet": "solved where it is quiet",
    }  # fmt: skip
    return f"""# The riddle of three digits

{sentence}.

![The riddle](figures/riddle.png)

A run is one seed and gives one answer; {settings.seeds} seeds in one tensor, {settings.pairs} antithetic pairs;
{main["optimizer"]}, {main["iterations_per_power"]} iterations at the powers {main["powers"]} (the paper: .5 1 3 10, a
non-stochastic optimiser, 600 s each). {_when(one, settings.plans[0].powers)}
Solved: at least half of {settings.draws} fresh draws read 1-3-4. The generator is a WGAN-GP trained here on {settings.data}
({settings.gan.steps} steps of the critic, {modules.generator.card["seconds"]:.0f} s); test accuracies: {networks}; judge
{judge["accuracy"]:.1%} ({judge["network"]}, other images, other seed). Machine: {one.get("machine", machine())};
the machine was also under other load.

{_markdown(rows, columns)}

## Restarts

How often the run of highest ELBO among several (for chains: highest mean log posterior) is solved, over all choices of runs
from the table above; then the same for the runs without a warning.

{_markdown(restarts, best)}

## Warnings

Neither warning knows the answer: both check the digits read from the draws against the five rules. The first reads them
with the question's own network, so it notices that an eight without a closed circle is still an eight; the second with an
independent network.

{_markdown(warnings, said)}

![Figure 4](figures/curves_{step_name(main["experiment"])}.png)

![Figure 5](figures/answers_{step_name(main["experiment"])}.png)

Deviations: iterations instead of seconds; another optimiser, with fresh noise in every iteration; powers between the
paper's; the generator and the classifiers are not the paper's; starts at a tenth of a prior draw. *Only* and *any* are
cumulative shares of seeds.
"""
