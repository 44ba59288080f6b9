from __future__ import annotations

import xml.etree.ElementTree as ElementTree

import pytest

from autovae.report.formulas import objective_formula, score_formula
from autovae.spec import VAESpec

SPECS = [
    VAESpec(), VAESpec(beta=0.5), VAESpec(samples=4), VAESpec(alpha=0.5, samples=8), VAESpec(alpha=0.0, samples=16),
    VAESpec(alpha=-2.0, samples=3), VAESpec(alpha=float("inf"), samples=3), VAESpec(alpha=float("-inf"), samples=3),
    VAESpec(bound="miwae", alpha=0.0, samples=8, groups=2), VAESpec(bound="ciwae", alpha=0.0, samples=8, mix=0.25),
    VAESpec(bound="piwae", alpha=0.0, samples=8, groups=2), VAESpec(likelihood="normal", scale=0.1),
    VAESpec(likelihood="normal", objective="mass", scale="pixel"),
    VAESpec(posterior={"logistic": 14, "normal": 6}, prior={"normal": 14, "cauchy": 6}),
]  # fmt: skip


@pytest.mark.parametrize("spec", SPECS, ids=range(len(SPECS)))
def test_formulas_are_well_formed_and_hold_every_weight(spec):
    formula = objective_formula(spec.to_dict())
    root = ElementTree.fromstring(formula.mathml)
    numbers = [node.text for node in root.iter("mn")]
    if spec.samples > 1 and abs(spec.alpha) != float("inf"):
        assert str(spec.samples) in numbers
    if spec.alpha == 1:
        assert f"{spec.beta:g}" in numbers
        assert str(spec.latent_dim) in numbers
    if spec.bound == "ciwae":
        assert {"0.25", "0.75"} <= set(numbers)
    assert formula.text
    assert any(spec.likelihood.replace("_", " ") in words for _, words in formula.letters)


def test_the_score_says_its_k_points_and_levels():
    study = {"score": {"samples": 16, "points": 1000, "final_samples": 200}, "data": {"levels": 17}}
    formula = score_formula(study, None, 64)
    ElementTree.fromstring(formula.mathml)
    words = " ".join(f"{a} {b}" for a, b in formula.letters)
    for part in ("16 in the search", "200 in the finals", "1,000", "17 levels", "64"):
        assert part in words


@pytest.mark.parametrize(
    ("likelihood", "support", "words"),
    [
        ("normal", "unit", "the bin that each level owns"),
        ("normal", "real", "dequantised"),
        ("bernoulli", "unit", "levels themselves"),
    ],
)
def test_the_letters_say_what_training_followed(likelihood, support, words):
    formula = objective_formula(VAESpec(likelihood=likelihood).to_dict(), support)
    assert any(words in meaning for letter, meaning in formula.letters if letter == "p(x|z)")
