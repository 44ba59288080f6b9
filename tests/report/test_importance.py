from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest

from autovae.report.axes import belief_axes
from autovae.report.importance import exact_importance, importance_of, importance_rows
from autovae.report.record import read_record

TABLE = Path(__file__).parents[2] / "results" / "belief_bench_digits_v1"


def row(number, score, posterior="normal", prior="normal", likelihood="bernoulli", **more):
    return {"number": number, "state": "COMPLETE", "score": score, "posterior": posterior, "prior": prior,
            "likelihood": likelihood, "alpha": 1.0, **more}  # fmt: skip


def rows_of(score, seeds=1, families=("normal", "laplace")):
    """A complete table over families x families x two likelihoods."""
    cells = itertools.product(families, families, ("bernoulli", "normal"), range(seeds))
    return [row(n, score(q, p, head) + 1e-3 * (s % 2), q, p, head) for n, (q, p, head, s) in enumerate(cells)]


def by_axis(result):
    return {row["axis"]: row for row in importance_rows(result) if not row["with_axis"]}


def test_axes_are_beliefs_that_vary():
    axes, points, partial = belief_axes(rows_of(lambda q, p, head: 1.0))
    assert [axis.name for axis in axes] == ["likelihood", "posterior", "prior"]
    assert axes[1].choices == ("laplace", "normal")
    assert len(points) == 8
    assert partial == []


def test_ranges_are_the_space_s():
    rows = [row(n, 1.0, learning_rate=float(v)) for n, v in enumerate(np.linspace(0.002, 0.009, 20))]
    space = {"parameters": {"learning_rate": {"low": 1e-3, "high": 1e-2, "log": True}}}
    (axis,), _, _ = belief_axes(rows, space)
    assert (axis.low, axis.high, axis.log) == (1e-3, 1e-2, True)


def test_the_axis_that_matters_comes_first():
    rows = rows_of(lambda q, p, head: 2.0 + (head == "normal") + 0.1 * (p == "laplace"), seeds=4)
    result = importance_of(rows, resamples=5)
    first = importance_rows(result)[0]
    assert first["axis"] == "likelihood"
    assert first["importance"] > 0.9
    assert first["low"] <= first["importance"] <= first["high"]
    assert first["trials"] == 32
    assert by_axis(result)["posterior"]["importance"] < 0.01


def test_interaction_of_posterior_and_prior_is_found_whatever_the_encoding():
    rows = rows_of(lambda q, p, head: float(q == p), seeds=4)
    result = importance_of(rows, resamples=2)
    best = max((r for r in importance_rows(result) if r["with_axis"]), key=lambda r: r["importance"])
    assert (best["axis"], best["with_axis"]) == ("posterior", "prior")
    assert best["importance"] > 0.8


def test_infinite_pairs_do_not_count():
    families = (
        "normal",
        "cauchy",
    )  # cauchy | normal is infinite, and whatever a forest guesses there is no interaction
    table = rows_of(lambda q, p, head: float(p == "cauchy" and q == "normal"), 3, families)
    result = importance_of([r for r in table if (r["posterior"], r["prior"]) != ("cauchy", "normal")], resamples=2)
    assert result.holes == 1
    together = next(r for r in importance_rows(result) if (r["axis"], r["with_axis"]) == ("posterior", "prior"))
    assert together["importance"] == pytest.approx(0, abs=1e-6)
    assert sum(r["importance"] for r in by_axis(result).values()) > 0.9


def test_axes_that_always_change_together_are_one():
    rows = [r for r in rows_of(lambda q, p, head: float(q == "laplace"), 3) if r["posterior"] == r["prior"]]
    axes, _, _ = belief_axes(rows)
    assert [axis.name for axis in axes] == ["likelihood", "posterior and prior"]
    assert axes[1].choices == ("laplace", "normal")
    found = by_axis(importance_of(rows, resamples=2))
    assert found["posterior and prior"]["importance"] > 0.9


def test_a_listed_space_leaves_out_what_it_does_not_list():
    rows = [
        r
        for r in rows_of(lambda q, p, head: float(p == "laplace"), 3)
        if (r["posterior"], r["prior"]) != ("laplace", "normal")
    ]
    space = {"parameters": {"pair": {"choices": ["normal|normal", "normal|laplace", "laplace|laplace"]}}}
    assert importance_of(rows, space, resamples=2).holes == 1
    assert importance_of(rows, resamples=2).holes == 0


def test_exact_table_is_the_analysis_of_variance():
    rows = rows_of(lambda q, p, head: 1.0 * (q == "laplace") + 2.0 * (p == "laplace") + 3 * (q == p == "laplace"))
    found = exact_importance(rows)
    cells = np.array([[0.0, 2.0], [1.0, 6.0]])
    q, p = cells.mean(1).var(), cells.mean(0).var()
    names = [axis.name for axis in found.axes]
    assert found.main[names.index("posterior")] == pytest.approx(q / cells.var())
    assert found.main[names.index("prior")] == pytest.approx(p / cells.var())
    assert found.main[names.index("likelihood")] == pytest.approx(0)
    assert found.pairs[names.index("posterior"), names.index("prior")] == pytest.approx(
        1 - (q + p) / cells.var(), abs=1e-6
    )


@pytest.mark.skipif(not TABLE.is_dir(), reason="the published results are not at hand")
def test_a_forest_finds_the_exact_decomposition_of_the_published_table():
    """A part of the 408 beliefs x 5 seeds says of each axis and pair what all of them say."""
    record = read_record(TABLE)
    exact = exact_importance(record.complete, record.study["space"])
    some = np.random.default_rng(0).permutation(len(record.complete))[:256]
    found = importance_of([record.complete[place] for place in some], record.study["space"], resamples=2)
    assert [axis.name for axis in found.axes] == [axis.name for axis in exact.axes]
    assert found.values.diagonal() == pytest.approx(exact.main, abs=0.01)
    above = np.triu_indices(len(exact.axes), 1)
    assert found.values[above] == pytest.approx(exact.pairs[above], abs=0.005)


def test_exact_table_with_numbers_is_refused():
    rows = [row(n, float(n), learning_rate=float(n + 1)) for n in range(20)]
    with pytest.raises(ValueError, match="complete table"):
        exact_importance(rows)


def test_heterogeneous_pairings_become_shares():
    rows = [
        row(0, 1.0, ("normal", "normal", "cauchy"), ("cauchy",) * 3),
        row(1, 2.0, ("normal", "cauchy", "cauchy"), ("cauchy",) * 3),
        row(2, 3.0, "normal", "cauchy"),
        row(3, 3.5, "cauchy", "cauchy"),
    ]
    axes, points, _ = belief_axes(rows)
    assert {axis.name for axis in axes} >= {"share of cauchy in posterior", "share of normal in posterior"}
    assert [p["share of cauchy in posterior"] for p in points] == pytest.approx([1 / 3, 2 / 3, 0, 1])


def test_an_axis_of_some_trials_is_judged_among_them():
    rows = [
        row(n, float(n % 2), components=float(n % 2) if n < 12 else "", likelihood="ab"[n % 3 == 0]) for n in range(20)
    ]
    result = importance_of(rows, resamples=2)
    found = [r for r in importance_rows(result) if r["axis"] == "components"]
    assert found[0]["branch"] == "trials with components"
    assert found[0]["trials"] == 12
    assert found[0]["importance"] > 0.8


@pytest.mark.parametrize(
    ("rows", "why"),
    [
        ([], "too few"),
        ([row(0, 1.0)], "too few"),
        ([row(n, float(n)) for n in range(6)], "same belief"),
        (rows_of(lambda q, p, head: 1.0), "same score"),
    ],
)
def test_it_says_why_there_is_none(rows, why):
    result = importance_of(rows)
    assert why in result.reason
    assert importance_rows(result) == []


def test_unfinished_scores_are_left_out():
    rows = [*rows_of(lambda q, p, head: float(head == "normal")), row(99, float("nan"))]
    assert importance_of(rows, resamples=2).trials == 8


def test_the_same_trials_give_the_same_numbers():
    rows = rows_of(lambda q, p, head: float(q == p))
    one, two = (importance_rows(importance_of(rows, resamples=3)) for _ in range(2))
    assert one == two


@pytest.mark.slow
def test_intervals_are_as_wide_as_estimates_spread_between_studies():
    effect = {"normal": 0.0, "laplace": 0.3, "logistic": 0.6, "gumbel": 0.0}

    def study(seed):
        generator = np.random.default_rng(seed)
        rows = []
        for number in range(60):
            q, p = (str(name) for name in generator.choice(list(effect), 2))
            head = int(generator.integers(3))
            score = effect[p] + 0.5 * head + 0.3 * (q == p) + 0.1 * generator.normal()
            rows.append(row(number, float(score), q, p, str(head)))
        return importance_of(rows, resamples=20)

    found = [study(seed) for seed in range(16)]
    estimates = np.array([result.values.diagonal() for result in found])[:, [0, 2]]
    widths = np.mean([(result.high - result.low).diagonal() for result in found], axis=0)[[0, 2]] / 2 / 2.09
    np.testing.assert_allclose(widths, estimates.std(0, ddof=1), rtol=0.5)


def test_matched_shares_are_one_axis():
    rows = [
        {
            "score": float(n),
            "posterior": ("normal",) * n + ("laplace",) * (4 - n),
            "prior": ("normal",) * n + ("laplace",) * (4 - n),
        }
        for n in (1, 2, 3)
    ]
    rows.append({"score": 4.0, "posterior": "normal", "prior": "normal"})
    axes, points, _ = belief_axes(rows)
    assert {axis.name for axis in axes} == {"share of normal", "share of laplace"}
    assert [point["share of normal"] for point in points] == [0.25, 0.5, 0.75, 1.0]
    rows[0]["prior"] = ("normal",) * 4
    assert {axis.name for axis in belief_axes(rows)[0]} >= {"share of normal in posterior", "share of normal in prior"}
