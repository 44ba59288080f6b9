r"""The objective and the score as formulas, with this study's numbers in them.

LaTeX becomes MathML (latex2mathml), which browsers typeset by themselves and screen readers can read. Each formula comes
with the meaning of its letters in this study. The formula of a bound is the bound's own (`training.bound`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from latex2mathml.converter import convert
from markupsafe import Markup

from autovae.beliefs.likelihoods import LIKELIHOODS
from autovae.spec import VAESpec
from autovae.training.bound import bound_of

__all__ = ["Formula", "objective_formula", "score_formula"]


@dataclass(frozen=True)
class Formula:
    """A formula as LaTeX and as plain text, and the meaning of its letters."""

    latex: str
    text: str
    letters: Sequence[tuple[str, str]] = ()

    @property
    def mathml(self) -> Markup:
        """MathML without a namespace: HTML knows the elements by name."""
        return Markup(convert(self.latex, display="block", xmlns="").replace(' xmlns=""', ""))


def objective_formula(spec: Mapping[str, Any], support: str = "unit") -> Formula:
    """The bound that training on data of this support maximises, with this spec's numbers in it."""
    checked = VAESpec.from_dict(spec)
    formula = bound_of(checked).formula(checked)
    return Formula(formula.latex, formula.text, [*formula.letters, *_letters(spec, checked.objective_on(support))])


def _letters(spec: Mapping[str, Any], objective: str) -> list[tuple[str, str]]:
    likelihood = str(spec.get("likelihood", ""))
    head = LIKELIHOODS.get(likelihood)
    if objective == "mass":
        what = "the log probability of the bin that each level owns"
    elif head is not None and head.trains_on == "levels":
        what = "of the levels themselves"
    else:
        what = "of dequantised data: (level + u) / L with fresh uniform u"
    sides = f"{_families(spec.get('posterior'))} posterior, {_families(spec.get('prior'))} prior"
    per_pixel = f"; per pixel {head.formula}, η from the decoder" if head else ""
    letters = [
        ("K", f"{spec.get('samples', 1)} latent sample(s) per point, z = loc + scale · ε by reparameterisation"),
        ("q, p", f"{sides}, {spec.get('latent_dim', '?')} latents"),
        ("p(x|z)", f"{likelihood.replace('_', ' ')} likelihood, {what}{per_pixel}"),
    ]
    if head is not None and head.has_scale:
        scale = str(spec.get("scale", "global"))
        how = {"global": "one number, learned", "pixel": "given by the decoder for every pixel"}
        letters.append(
            ("s", f"the likelihood's scale: {how.get(scale, f'fixed at {scale}')}, at least a quarter of a bin")
        )
    return letters


def _families(names: Any) -> str:
    if isinstance(names, (list, tuple)):
        return " + ".join(f"{names.count(name)} {name}" for name in dict.fromkeys(names))
    return str(names)


def score_formula(study: Mapping[str, Any], summary: Mapping[str, Any] | None, features: int | None) -> Formula:
    """Bits per dimension, the score of trials and finals; `features` numbers per data point, if known."""
    rule, summary = study.get("score", {}), summary or {}
    samples, points = rule.get("samples", "?"), rule.get("points", "?")
    final = summary.get("samples", rule.get("final_samples", "?"))
    levels = summary.get("levels", study.get("data", {}).get("levels", "?"))
    size = "X" if features is None else f"{features:,}"
    digits = size.replace(",", "{,}")
    latex = (
        rf"\mathrm{{bits}} = - \frac{{1}}{{{digits} \, \ln 2}} \; \underset{{v}}{{\mathrm{{mean}}}} \; "
        r"\log \left[ \frac{1}{K} \sum_{k=1}^{K} \frac{P(v \mid z_k) \, p(z_k)}{q(z_k \mid x)} \right]"
    )
    text = f"bits = −(1 / ({size} ln 2)) mean_v log (1/K) Σ_k P(v|z_k) p(z_k) / q(z_k|x)"
    search = f"the first {points:,} validation points in the search, all in the finals"
    letters = [
        ("P(v|z)", f"probability of the observed levels v, each of {levels} levels owning one bin of the range"),
        ("K", f"{samples} in the search, {final} in the finals, with the same noise for all"),
        ("points", search if isinstance(points, int) else "validation points"),
        (size, "numbers per data point"),
    ]
    return Formula(latex, text, letters)
