r"""What was maximised and how it was judged, as formulas with every weight in them, and their limits in plain words.

Formulas are LaTeX turned into MathML, which browsers set without a library and screen readers can read. A formula comes
with a table of what each letter is in this very study. The formula of a bound is the bound's own (`training.bound`).
Not here: the page around it (`html`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from latex2mathml.converter import convert

from autovae.beliefs.likelihoods import LIKELIHOODS
from autovae.spec import VAESpec
from autovae.training.bound import bound_of

__all__ = ["Formula", "limits", "objective_formula", "score_formula"]


@dataclass(frozen=True)
class Formula:
    """A formula as MathML, as plain text, and what its letters are."""

    mathml: str
    text: str
    letters: list[tuple[str, str]] = field(default_factory=list)


def _mathml(latex: str) -> str:
    return convert(latex, display="block", xmlns="").replace(' xmlns=""', "")  # HTML knows the elements by name


def objective_formula(spec: Mapping[str, Any]) -> Formula:
    """The bound that training maximises, with this spec's numbers in it."""
    checked = VAESpec.from_dict(spec)
    formula = bound_of(checked).formula(checked)
    return Formula(_mathml(formula.latex), formula.text, [*formula.letters, *_letters(spec)])


def _letters(spec: Mapping[str, Any]) -> list[tuple[str, str]]:
    likelihood = str(spec.get("likelihood", ""))
    head = LIKELIHOODS.get(likelihood)
    mass = spec.get("objective") == "mass"
    if mass:
        what = "the log probability of the bin that each level owns"
    elif head is not None and head.trains_on == "levels":
        what = "of the levels themselves"
    else:
        what = "of dequantised data: (level + u) / L with fresh uniform u"
    letters = [
        ("K", f"{spec.get('samples', 1)} latent sample(s) a point, z = loc + scale · ε by reparameterisation"),
        ("q, p", f"{_families(spec.get('posterior'))} posterior, {_families(spec.get('prior'))} prior, "
                 f"{spec.get('latent_dim', '?')} latents"),
        ("p(x|z)", f"{likelihood.replace('_', ' ')} likelihood, {what}"
                   + (f"; per pixel {head.formula}, η from the decoder" if head else "")),
    ]  # fmt: skip
    if head is not None and head.has_scale:
        scale = spec.get("scale", "global")
        how = {"global": "one number, learned", "pixel": "given by the decoder for every pixel"}.get(
            str(scale), f"fixed at {scale}"
        )
        letters.append(("s", f"the likelihood's scale: {how}, never below a quarter of a bin"))
    return letters


def _families(names: Any) -> str:
    if isinstance(names, (list, tuple)):
        return " + ".join(f"{names.count(name)} {name}" for name in dict.fromkeys(names))
    return str(names)


def score_formula(study: Mapping[str, Any], summary: Mapping[str, Any] | None, features: int | None) -> Formula:
    """Bits per dimension: what trials and finals were judged by."""
    rule = study.get("score", {})
    samples, points = rule.get("samples", "?"), rule.get("points", "?")
    final = (summary or {}).get("samples", rule.get("final_samples", "?"))
    levels = (summary or {}).get("levels", study.get("data", {}).get("levels", "?"))
    size = "X" if features is None else f"{features:,}"
    digits = size.replace(",", "{,}")
    body = _mathml(
        rf"\mathrm{{bits}} = - \frac{{1}}{{{digits} \, \ln 2}} \; \underset{{v}}{{\mathrm{{mean}}}} \; "
        r"\log \left[ \frac{1}{K} \sum_{k=1}^{K} \frac{P(v \mid z_k) \, p(z_k)}{q(z_k \mid x)} \right]"
    )
    text = f"bits = −(1 / ({size} ln 2)) mean_v log (1/K) Σ_k P(v|z_k) p(z_k) / q(z_k|x)"
    letters = [
        ("P(v|z)", f"probability of the observed levels v, each of {levels} levels owning one bin of the range"),
        ("K", f"{samples} in the search, {final} in the finals, the same noise for all"),
        ("points", f"the first {points:,} validation points in the search, all in the finals" if isinstance(points, int)
                   else "validation points"),
        (size, "numbers a data point has"),
    ]  # fmt: skip
    return Formula(body, text, letters)


def limits(study: Mapping[str, Any], summary: Mapping[str, Any] | None, likelihoods: set[str]) -> list[str]:
    """What the numbers do not say."""
    values = summary or {}
    levels = values.get("levels", study.get("data", {}).get("levels"))
    found = [
        "The score is a bound: the true bits per dimension are at most as many, and decoder and encoder share the blame.",
    ]
    gap = values.get("bound_gap")
    if isinstance(gap, (int, float)):
        found.append(
            f"With ten times as many samples the winner's bound still falls by {gap:.4f} bits per dimension "
            "(100 validation points); no winner is named for a smaller lead."
        )
    if values.get("rounded"):
        found.append(f"The data are floats without levels; they were rounded to {levels} levels to be scored.")
    if "bernoulli" in likelihoods and levels and levels != 2:
        found.append(
            "Bernoulli heads know two outcomes. On grey levels they are scored as the continuous Bernoulli of the same "
            "logits, and lose partly by construction."
        )
    seeds = (values.get("gain_test") or {}).get("seeds") or study.get("finals", {}).get("seeds")
    found.append(
        "Trials of the search are single fits with one seed each; fits of one belief differ between seeds. Only the "
        f"finals compare over seeds{f' ({seeds} of them)' if seeds else ''}, and test data were used once, after picking."
    )
    found.append(
        "Each belief had the same network, optimiser and number of epochs, none was tuned by itself; what is said holds "
        "for this data set and this budget."
    )
    return found
