"""Conditional digits: table 1, the diagnostics of the chains, figures 1 and 2, and the page."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure

from autovae.export.folders import machine
from autovae.report.theme import COLOURS, SERIES, new_figure, style
from autovae.reproductions.digit_modules import DigitModules
from autovae.reproductions.digit_pictures import digit_rows
from autovae.reproductions.notebook import Notebook
from autovae.reproductions.settings import ConditionalSettings

__all__ = ["PAPER", "write_report"]

Found = dict[tuple[str, str], dict[str, Any]]

# Table 1: accuracy by an independent classifier, by the model's, and FID; all digits, then 0 to 9.
PAPER: dict[str, dict[str, tuple[float, ...]]] = {
    "cwgan": {
        "accuracy_judge": (0.965, 0.99, 0.99, 0.94, 0.97, 0.96, 0.94, 0.98, 0.96, 0.96, 0.96),
        "accuracy_model": (0.967, 0.99, 0.98, 0.97, 0.95, 0.96, 0.95, 0.99, 0.94, 0.95, 0.97),
        "frechet": (28.6, 18.0, 14.7, 35.9, 29.2, 33.8, 27.3, 26.8, 29.8, 42.8, 27.8),
    },
    "hmc": {
        "accuracy_judge": (0.956, 0.99, 0.96, 0.89, 0.97, 0.96, 0.94, 0.96, 0.98, 0.96, 0.96),
        "accuracy_model": (0.997, 1, 0.98, 1, 1, 1, 1, 0.99, 1, 1, 1),
        "frechet": (22.3, 18.2, 19.6, 33.8, 25.6, 19.2, 21.4, 25.3, 19.0, 27.2, 13.6),
    },
    "mean_field": {
        "accuracy_judge": (0.958, 0.97, 0.97, 0.95, 0.97, 0.93, 0.96, 0.97, 0.96, 0.96, 0.94),
        "accuracy_model": (0.960, 0.96, 0.97, 0.96, 0.96, 0.94, 0.96, 0.97, 0.96, 0.96, 0.95),
        "frechet": (39.9, 36.1, 37.7, 43.8, 31.7, 28.2, 25.6, 36.5, 44.4, 39.4, 31.6),
    },
}
PAPER_CHAIN_SECONDS, PAPER_RHAT, PAPER_ESS = 36 * 60, 1.001, 5474
SCORES = ("accuracy_model", "accuracy_judge", "frechet")
NAMES = {"test images": "test images", "cwgan": "cWGAN", "hmc": "HMC", "mean_field": "mean field", "mgvi": "MGVI"}


def write_report(
    settings: ConditionalSettings, found: Found, modules: DigitModules, notebook: Notebook
) -> dict[str, Any]:
    """Everything under results/<study>/; the summary for the terminal."""
    rows = [row for (prior, method), one in found.items() for row in _score_rows(prior, method, one, settings)]
    notebook.write_table("table.csv", rows)
    checks = [row for (prior, method), one in found.items() if method == "hmc" for row in _checks(prior, one, settings)]
    notebook.write_table("diagnostics.csv", checks)
    for prior in settings.priors:
        notebook.write_figure(f"samples_{prior}.png", samples_figure(prior, found))
        curves = found[prior, "hmc"]["warmup"]
        if any(curve["iterations"] for curve in curves.values()):
            notebook.write_figure(f"warmup_{prior}.png", warmup_figure(curves))
    main = settings.priors[0]
    hmc = _mean(found[main, "hmc"])
    rhat = float(np.mean([row["rhat_mean"] for row in found[main, "hmc"]["rows"].values()]))
    sentence = (
        f"HMC on {main}: accuracy {hmc['accuracy_model']:.3f} by the classifier that was asked (paper .997), "
        f"{hmc['accuracy_judge']:.3f} by the judge (paper .956), mean R-hat {rhat:.4f} (paper 1.001)"
    )
    notebook.write_readme(_page(settings, found, checks, modules, sentence))
    return {"rows": [row for row in rows if row["digit"] == "all"], "sentence": sentence}


def _mean(one: dict[str, Any]) -> dict[str, float]:
    """Means over digits; of the FID too where every digit has one."""
    rows = one["rows"].values()
    names = [*SCORES, "fid"] if all("fid" in row for row in rows) else SCORES
    return {name: float(np.mean([row[name] for row in rows])) for name in names}


def _score_rows(prior: str, method: str, one: dict[str, Any], settings: ConditionalSettings) -> list[dict[str, Any]]:
    """One row for all digits, then one a digit."""
    rows = []
    whole = len(settings.digits) == 10
    for digit, scores in {"all": _mean(one), **one["rows"]}.items():
        row: dict[str, Any] = {"prior": prior, "method": method, "digit": digit}
        for name in SCORES:
            row[name] = round(scores[name], 4 if name != "frechet" else 2)
            paper = PAPER.get(method, {}).get(name)
            known = paper is not None and (digit != "all" or whole)
            row[f"{'fid' if name == 'frechet' else name}_paper"] = (
                paper[0 if digit == "all" else int(digit) + 1] if known and paper is not None else ""
            )
        if "fid" in scores:
            row["fid_inception"] = round(scores["fid"], 2)
        row["seconds"] = round(one["solving_seconds"], 1) if digit == "all" else ""
        rows.append(row)
    return rows


def _checks(prior: str, one: dict[str, Any], settings: ConditionalSettings) -> list[dict[str, Any]]:
    columns = (
        "rhat_mean", "rhat_max", "rhat_xi2_mean", "rhat_energy", "ess_xi", "ess_xi2", "ess_energy", "acceptance",
        "divergences",
    )  # fmt: skip
    draws = settings.hmc.chains * settings.hmc.draws
    rows: list[dict[str, Any]] = [
        {"prior": prior, "digit": digit, "draws": draws, **{name: round(row[name], 4) for name in columns}}
        for digit, row in one["rows"].items()
    ]
    mean = {name: round(float(np.mean([row[name] for row in rows])), 4) for name in columns}
    mean["rhat_max"] = max(row["rhat_max"] for row in rows)
    return [{"prior": prior, "digit": "all", "draws": draws, **mean}, *rows]


# -- figures ----------------------------------------------------------------------------------------------------------


def samples_figure(prior: str, found: Found) -> Figure:
    """Figure 1: a row a digit, the mean first; one block a method."""
    blocks = []
    for (name, method), one in found.items():
        if name in ("", prior) and method != "test images":
            blocks.append((NAMES[method], torch.tensor(list(one["pictures"].values())).float() / 255))
    return digit_rows(blocks, columns=2, first_apart=True, pixel=0.0085)


def warmup_figure(curves: dict[str, Any]) -> Figure:
    """Figure 2: the distance of all samples so far over warm-up, of every chain and on average."""
    with style():
        figure = new_figure(2.6, 4.6)
        axes = figure.subplots()
        lines = []
        for curve in curves.values():
            for line in curve["distance"]:
                axes.plot(curve["iterations"], line, color=COLOURS["muted"], lw=0.4, alpha=0.5)
                lines.append(line)
        at = next(iter(curves.values()))["iterations"]
        axes.plot(at, np.mean(lines, 0), color=SERIES[0], lw=2, label="mean of all chains")
        axes.set(xlabel="iterations of warm-up", ylabel="Frechet distance, judge's features", yscale="log")
        axes.legend()
    return figure


def _belief(found: Found) -> str:
    about = found.get(("winner", "hmc"), {}).get("about", "")
    return f": {about}" if about else ""


# -- the page ---------------------------------------------------------------------------------------------------------


def _page(
    settings: ConditionalSettings, found: Found, checks: list[dict[str, Any]], modules: DigitModules, sentence: str
) -> str:  # fmt: skip
    inception = (
        "The FID with Inception's features is given too."
        if settings.inception
        else "No weights of Inception-v3 were given (`inception` in the study file)."
    )
    asked, judge = modules.network("digit").card, modules.judge().card
    asked_name, judge_name = asked.get("network", "own"), judge.get("network", "own")
    asked_accuracy, judge_accuracy = (
        f"{card['accuracy']:.2%}" if "accuracy" in card else "not measured" for card in (asked, judge)
    )
    fid = any("fid" in _mean(one) for one in found.values())
    head = "| prior | method | accuracy, asked | paper | by the judge | paper | Frechet, judge's |"
    lines = [f"{head}{' FID, ours |' if fid else ''} FID, paper | seconds |", "|---" * (9 + fid) + "|"]
    for (prior, method), one in found.items():
        mean, paper = _mean(one), PAPER.get(method, {})
        cells = [prior or "-", NAMES[method]]
        for name, places in zip(SCORES, (3, 3, 1), strict=True):
            cells.append(f"{mean[name]:.{places}f}")
            if fid and name == "frechet":
                cells.append(f"{mean['fid']:.1f}" if "fid" in mean else "")
            cells.append(f"{paper[name][0]:g}" if paper else "")
        lines.append("| " + " | ".join([*cells, f"{one['solving_seconds']:.0f}"]) + " |")
    plan, main = settings.hmc, settings.priors[0]
    hmc = found[main, "hmc"]
    worst = [
        f"| {row['prior']} | {row['rhat_mean']:.4f} | {row['rhat_max']:.3f} | {row['rhat_xi2_mean']:.4f} | {row['ess_xi']:.0f} | "
        f"{row['ess_xi2']:.0f} | {row['ess_energy']:.0f} | {row['acceptance']:.2f} | {row['divergences']:.0f} |"
        for row in checks
        if row["digit"] == "all"
    ]
    chains = len(settings.digits) * plan.chains
    iterations = len(plan.ladder) * plan.burn_in + plan.warmup + plan.draws
    took = f"{hmc['solving_seconds']:.0f} s together, {hmc['solving_seconds'] / chains:.1f} s a chain"
    belief = f"{settings.vae.posterior} | {settings.vae.prior}, {settings.vae.latent_dim} latents, {settings.vae.epochs} epochs"
    asked = {
        "vae": f"the VAE ({belief}) was exported and read back as a prior module",
        "winner": f"the winner is the one that {settings.study} exported{_belief(found)}",
    }
    steps = settings.conditional.steps
    conditional = "the conditional one as many" if steps == settings.gan.steps else f"the conditional one {steps}"
    conditional += ", so fewer steps count against it" if steps < settings.gan.steps else ""
    cards = [modules.generator.card] if "wgan" in settings.priors else []
    cards += [modules.conditional.card] if "cwgan" in settings.methods else []
    where = {"cuda": " on a GPU", "cpu": " on a CPU"}
    took_each = [f"{card['seconds']:.0f} s{where.get(card.get('trained_on', ''), '')}" for card in cards]
    trained = f"; trained in {' and '.join(took_each)}" if cards else ""
    no_gan = "No GAN was asked in this setting" if not cards else ""
    gans = (
        no_gan
        or f"The generators are WGAN-GPs trained here ({settings.gan.steps} steps of the critic; {conditional}{trained})"
    )
    named = [words for name, words in asked.items() if name in settings.priors]
    vae = "".join(f"; {words}" for words in named) if named else "; no VAE was asked in this setting"
    return f"""# Conditional digits

{sentence}.

![The methods on {main}: means first](figures/samples_{main}.png)

Table 1, means over digits {", ".join(map(str, settings.digits))}; every digit is in `table.csv`.

{chr(10).join(lines)}

*Frechet, judge's*: Frechet distance to the training images of the digit in the {judge_name} judge's last hidden layer. It
is not an FID (Inception's features, the paper's column) and only compares rows of this table. There are fewer test
images than samples, which raises their distance. {inception} Asked: {asked_name}, test accuracy {asked_accuracy}; judge:
{judge_name}, {judge_accuracy}, trained on the other half of the images.

Chains, means over digits except the worst: {plan.chains} chains of {plan.draws} draws a digit, after {plan.burn_in}
iterations at each power of
{plan.ladder} and {plan.warmup} of warm-up at {settings.power:g}; {plan.steps} leapfrogs, target acceptance {plan.target}.
The paper: mean R-hat {PAPER_RHAT}, N_eff {PAPER_ESS} of 80,000.

| prior | mean R-hat | worst R-hat | R-hat of xi^2 | ESS of xi | of xi^2 | of energy | acceptance | divergences |
|---|---|---|---|---|---|---|---|---|
{chr(10).join(worst)}

All {chains} chains of the {main} took {took} of {iterations} iterations;
in the paper 36 minutes a chain of more than 10,000. Machine: {hmc.get("machine", machine())}, under other load too.

![Distance during warm-up](figures/warmup_{main}.png)

{gans}{vae}. At a power of {settings.power:g} the classifier must be nearly certain, which excludes unusual digits
and raises the distance.
Deviations: chains run through smaller powers first, since some otherwise keep the digit
they start from; the chains of all digits share step size and mass; mean field takes
{settings.mean_field_iterations} steps of ADVI instead of 600 s; MGVI is not in the paper. The paper's FID of mean field for
all digits, 39.9, is not the mean of its ten digits, 35.5.
"""
