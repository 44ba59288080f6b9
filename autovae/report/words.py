r"""What was maximised and how it was judged, as formulas with every weight in them, and their limits in plain words.

Formulas are MathML, which browsers set without a library and screen readers can read. A formula comes with a table of
what each letter is in this very study. Not here: the page around it (`html`), the bounds themselves (`model.bounds`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from html import escape
from typing import Any

from autovae.beliefs.likelihoods import LIKELIHOODS

__all__ = ["Formula", "limits", "objective_formula", "score_formula"]


@dataclass(frozen=True)
class Formula:
    """A formula as MathML, as plain text, and what its letters are."""

    mathml: str
    text: str
    letters: list[tuple[str, str]] = field(default_factory=list)


def _i(name: str) -> str:
    return f"<mi>{name}</mi>"


def _n(value: float | str) -> str:
    if isinstance(value, str):
        return f"<mn>{value}</mn>"
    return f"<mn>{value:g}</mn>" if math.isfinite(value) else f"<mo>{'−' if value < 0 else ''}</mo><mi>∞</mi>"


def _o(sign: str) -> str:
    return f"<mo>{escape(sign)}</mo>"


def _row(*parts: str) -> str:
    return f"<mrow>{''.join(parts)}</mrow>"


def _sub(base: str, index: str) -> str:
    return f"<msub>{base}{index}</msub>"


def _frac(above: str, below: str) -> str:
    return f"<mfrac>{above}{below}</mfrac>"


def _apart(part: str, up: str) -> str:
    """A limit of a sum a little further from its sign: without a font for mathematics browsers set them over each other."""
    raised = f'height="+{up}" voffset="{up}"' if up[0] != "-" else f'depth="+{up[1:]}" voffset="{up}"'
    return f"<mpadded {raised}>{part}</mpadded>"


def _sum(index: str, last: str) -> str:
    first = _apart(_row(_i(index), _o("="), _n(1)), "-0.2em")
    return f"<munderover>{_o('∑')}{first}{_apart(last, '0.3em')}</munderover>"


def _log(*parts: str) -> str:
    return _row("<mi>log</mi>", "<mspace width='0.17em'></mspace>", *parts)


def _of(name: str, *parts: str) -> str:
    return _row(_i(name), _o("("), *parts, _o(")"))


def _mean(index: str, count: float) -> str:
    """(1/n) sum over the index, or nothing where n is 1."""
    return "" if count == 1 else _row(_frac(_n(1), _n(count)), _sum(index, _n(count)))


def _math(*parts: str) -> str:
    return f'<math display="block">{_row(*parts)}</math>'


def _given(index: str) -> str:
    return _of("p", _i("x"), _o("∣"), _sub(_i("z"), _i(index)))


def _weight(index: str) -> str:
    z = _sub(_i("z"), _i(index))
    return _frac(_row(_given(index), _of("p", z)), _of("q", z, _o("∣"), _i("x")))


def objective_formula(spec: Mapping[str, Any]) -> Formula:
    """The bound that training maximises, with this spec's numbers in it."""
    alpha, count, beta = float(spec.get("alpha", 1)), int(spec.get("samples", 1)), float(spec.get("beta", 1))
    groups, bound, dims = int(spec.get("groups", 1)), str(spec.get("bound", "vr")), int(spec.get("latent_dim", 0))
    letters = _letters(spec)
    if bound != "vr":
        return _grouped(bound, count, groups, float(spec.get("mix", 0.5)), letters)
    if alpha == 1:
        q, p = (_sub(_i(name), _i("i")) for name in "qp")
        name = _divergence(spec)
        divergence = _row(_sum("i", _n(dims)), f"<mi>{name}</mi>", _o("("), q, _o("‖"), p, _o(")"))
        weight = _row(_n(beta), _o("·"))
        body = _math(_mean("k", count), _log(_given("k")), _o("−"), weight, divergence)
        mean = "" if count == 1 else f"(1/{count}) Σ_k "
        text = f"{mean}log p(x|z_k) − {beta:g} Σ_i {name}(q_i ‖ p_i), i = 1..{dims}"
        return Formula(body, text, [("β", f"{beta:g}, the weight of the divergence"), *letters])
    if alpha == 0:
        inner = _math("<mi>log</mi>", _o("["), _mean("k", count), _weight("k"), _o("]"))
        text = f"log (1/{count}) Σ_k w_k, w = p(x|z) p(z) / q(z|x): the importance-weighted bound"
        return Formula(inner, text, [("α", "0, the importance-weighted bound"), *letters])
    if math.isinf(alpha):
        which, word = ("min", "smallest") if alpha > 0 else ("max", "largest")
        chosen = f"<munder><mo>{which}</mo>{_i('k')}</munder>"
        text = f"{which}_k log w_k, w = p(x|z) p(z) / q(z|x)"
        return Formula(_math(chosen, _log(_weight("k"))), text, [("α", f"{alpha}, the {word} weight"), *letters])
    order = _n(round(1 - alpha, 10))
    power = f"<msup>{_row(_o('('), _weight('k'), _o(')'))}{order}</msup>"
    body = _math(_frac(_n(1), order), "<mi>log</mi>", _o("["), _mean("k", count), power, _o("]"))
    text = f"1/(1 − {alpha:g}) log (1/{count}) Σ_k w_k^(1 − {alpha:g}), w = p(x|z) p(z) / q(z|x)"
    return Formula(body, text, [("α", f"{alpha:g}, the order of the variational Rényi bound"), *letters])


def _divergence(spec: Mapping[str, Any]) -> str:
    """The symbol of the ELBO's divergence."""
    order = float(spec.get("regulariser_order", 0.5))
    return {"renyi": f"D_{order:g}", "jeffreys": "J"}.get(str(spec.get("regulariser", "kl")), "KL")


def _grouped(bound: str, count: int, groups: int, mix: float, letters: list[tuple[str, str]]) -> Formula:
    log_mean = _log(_o("["), _mean("k", count), _weight("mk"), _o("]"))
    known = [("M", f"{groups} groups of K samples"), *letters]
    grouped = _row(_mean("m", groups), log_mean)
    if bound == "ciwae":
        elbo = _row(_n(mix), _o("·"), _mean("m", groups), _mean("k", count), _log(_weight("mk")))
        text = f"{mix:g} ELBO + {1 - mix:g} IWAE of {groups} x {count} samples"
        return Formula(_math(elbo, _o("+"), _n(1 - mix), _o("·"), grouped), text, known)
    if bound == "piwae":
        text = f"encoder: (1/{groups}) Σ_m log (1/{count}) Σ_k w_mk; decoder: log (1/{groups * count}) Σ_mk w_mk"
        return Formula(_math(grouped), text + " (shown: the encoder's)", known)
    return Formula(_math(grouped), f"(1/{groups}) Σ_m log (1/{count}) Σ_k w_mk", known)


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
    z = _sub(_i("z"), _i("k"))
    weight = _frac(_row(_of("P", _i("v"), _o("∣"), z), _of("p", z)), _of("q", z, _o("∣"), _i("x")))
    outer = _frac(_n(1), _row(_n(size), "<mspace width='0.2em'></mspace>", "<mi>ln</mi>", _n(2)))
    average = f"<munder><mo>mean</mo>{_apart(_i('v'), '-0.2em')}</munder>"
    inner = _row("<mi>log</mi>", _o("["), _frac(_n(1), _i("K")), _sum("k", _i("K")), weight, _o("]"))
    body = _math("<mi>bits</mi>", _o("="), _o("−"), outer, average, inner)
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
