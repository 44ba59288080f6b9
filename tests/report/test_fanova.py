"""fANOVA of a forest is exact: against Optuna, against brute force, and on tables whose decomposition is known."""

from __future__ import annotations

import itertools

import numpy as np
import optuna
import pytest

from autovae.report.boxes import Joint
from autovae.report.fanova import decompose
from autovae.report.forest import Axis, encode, exact_forest, fit_forest

X0, X1 = Axis("x0", 0, 1), Axis("x1", -2, 3)
COLOUR = Axis("colour", choices=("red", "green", "blue", "black"))
SIZE = Axis("size", choices=("s", "m", "l"))


def points(count, axes, seed=0):
    generator = np.random.default_rng(seed)
    return [
        {
            axis.name: str(generator.choice(axis.choices))
            if axis.categorical
            else generator.uniform(axis.low, axis.high)
            for axis in axes
        }
        for _ in range(count)
    ]


def value(row):
    level = {"red": 0, "green": 1, "blue": 2, "black": 0}[row["colour"]]
    return 2 * row["x0"] + level * row["x1"] + (row["size"] == "m" and row["colour"] == "red")


def fitted(count=60, trees=6, axes=(COLOUR, SIZE, X0, X1)):
    rows = points(count, axes)
    scores = np.array([value(row) for row in rows])
    return axes, rows, scores, fit_forest(encode(axes, rows), scores, trees)


def table(axes):
    return [
        dict(zip([a.name for a in axes], cell, strict=True)) for cell in itertools.product(*(a.choices for a in axes))
    ]


def test_main_effects_equal_optunas():
    axes, rows, scores, _ = fitted(40)
    space = {
        a.name: optuna.distributions.CategoricalDistribution(a.choices)
        if a.categorical
        else optuna.distributions.FloatDistribution(a.low, a.high)
        for a in axes
    }
    study = optuna.create_study()
    study.add_trials(
        [optuna.create_trial(params=r, distributions=space, value=v) for r, v in zip(rows, scores, strict=True)]
    )
    peer = optuna.importance.FanovaImportanceEvaluator(n_trees=4, seed=0).evaluate(study)
    own = decompose(axes, fit_forest(encode(axes, rows), scores, 4), pairs=False, measure="cube")
    np.testing.assert_allclose([peer[a.name] for a in axes], own.main, atol=1e-12)


def grid_of(axes, per_axis=400):
    """Every choice, and the middles of a fine grid: brute force over two axes, the others integrated by sampling."""
    return [
        list(a.choices) if a.categorical else list(a.low + (a.high - a.low) * (np.arange(per_axis) + 0.5) / per_axis)
        for a in axes
    ]


def test_effects_equal_brute_force_over_a_fine_grid():
    axes = (COLOUR, X0, X1)
    rows = points(30, axes)
    scores = np.array([2 * r["x0"] + r["x1"] * (r["colour"] == "blue") * r["x0"] for r in rows])
    forest = fit_forest(encode(axes, rows), scores, 2)
    found = decompose(axes, forest)
    places = grid_of(axes, 150)
    cells = [dict(zip(("colour", "x0", "x1"), cell, strict=True)) for cell in itertools.product(*places)]
    inputs = encode(axes, cells).astype(np.float32)
    for number, tree in enumerate(forest.trees):
        cube = tree.predict(inputs).reshape(4, 150, 150)
        cube = cube - cube.mean()
        alone = [cube.mean(tuple({0, 1, 2} - {axis})) for axis in range(3)]
        for axis in range(3):
            assert found.main_by_tree[number, axis] == pytest.approx(
                (alone[axis] ** 2).mean() / (cube**2).mean(), abs=0.01
            )
        for a, b in itertools.combinations(range(3), 2):
            both = cube.mean(({0, 1, 2} - {a, b}).pop())
            rest = both - alone[a][:, None] - alone[b][None]
            assert found.pairs_by_tree[number, a, b] == pytest.approx((rest**2).mean() / (cube**2).mean(), abs=0.01)


def test_a_complete_table_is_decomposed_exactly():
    rows = table((COLOUR, SIZE))
    a, b = np.array([0.0, 1, 3, 0]), np.array([2.0, -1, 0])
    c = np.outer([1, -1, 1, -1], [1, 0, -1])  # every row and column sums to zero
    scores = np.array([a[i] + b[j] + c[i, j] for i in range(4) for j in range(3)])
    found = decompose((COLOUR, SIZE), exact_forest(encode((COLOUR, SIZE), rows), scores))
    total = scores.var()
    np.testing.assert_allclose(found.main, [a.var() / total, b.var() / total], atol=1e-12)
    assert found.pairs[0, 1] == pytest.approx(c.var() / total, abs=1e-6)


def test_shares_of_two_axes_sum_to_one():
    axes = (COLOUR, X0)
    rows = points(50, axes)
    scores = np.array([len(r["colour"]) * r["x0"] for r in rows])
    found = decompose(axes, fit_forest(encode(axes, rows), scores, 8))
    np.testing.assert_allclose(found.main_by_tree.sum(1) + found.pairs_by_tree[:, 0, 1], 1, atol=1e-5)


def test_a_forest_finds_a_known_decomposition():
    generator = np.random.default_rng(1)
    axes = (COLOUR, X0)
    rows = points(300, axes, seed=2)
    effect = dict(zip(COLOUR.choices, (0, 1, 2, 0), strict=True))
    slope = np.sqrt(12 * np.var([0, 1, 2, 0]))  # both axes explain a half
    scores = np.array([effect[r["colour"]] + slope * r["x0"] for r in rows]) + 0.01 * generator.normal(size=300)
    forest = fit_forest(encode(axes, rows), scores, 24)
    found = decompose(axes, forest)
    np.testing.assert_allclose(found.main, 0.5, atol=0.05)
    assert found.pairs[0, 1] < 0.02
    assert forest.r2 > 0.95


def test_holes_a_joint_without_holes_changes_nothing():
    axes, _, _, forest = fitted()
    every = Joint(0, tuple(itertools.product(range(4), range(3))))
    plain, joined = decompose(axes, forest), decompose(axes, forest, joint=every)
    np.testing.assert_allclose(joined.main, plain.main, atol=1e-10)
    np.testing.assert_allclose(joined.pairs, plain.pairs, atol=1e-5)


def test_holes_are_split_by_least_squares():
    cells = [(i, j) for i in range(4) for j in range(3) if (i, j) not in {(0, 2), (3, 1), (2, 0)}]
    rows = [{"colour": COLOUR.choices[i], "size": SIZE.choices[j]} for i, j in cells]
    scores = np.random.default_rng(3).normal(size=len(cells))
    axes = (COLOUR, SIZE)
    found = decompose(axes, exact_forest(encode(axes, rows), scores), joint=Joint(0, tuple(cells)))
    design = np.array([[i == k for k in range(4)] + [j == k for k in range(1, 3)] for i, j in cells], float)
    fit = np.linalg.lstsq(design, scores, rcond=None)[0]
    parts = design[:, :4] @ fit[:4], design[:, 4:] @ fit[4:]
    shares = [np.cov(part, scores, ddof=0)[0, 1] / scores.var() for part in parts]
    np.testing.assert_allclose(found.main, shares, atol=1e-10)
    assert found.main.sum() + found.pairs[0, 1] == pytest.approx(1)


def test_holes_the_values_of_what_cannot_be_searched_do_not_count():
    axes = (COLOUR, SIZE)
    rows = table(axes)
    cells = tuple((i, j) for i in range(4) for j in range(3) if (i, j) != (1, 1))
    scores = np.array([float(len(r["colour"])) for r in rows])
    wild = scores + np.array([1e3 * (r["colour"] == "green" and r["size"] == "m") for r in rows])
    one, other = (decompose(axes, exact_forest(encode(axes, rows), s), joint=Joint(0, cells)) for s in (scores, wild))
    np.testing.assert_allclose(one.main, other.main, atol=1e-9)


def test_curves_are_the_marginal_means():
    rows = table((COLOUR, SIZE))
    scores = np.random.default_rng(4).normal(size=(4, 3))
    found = decompose((COLOUR, SIZE), exact_forest(encode((COLOUR, SIZE), rows), scores.ravel()), curves=True)
    np.testing.assert_allclose(found.curves[0][1][0], scores.mean(1))
    np.testing.assert_allclose(found.curves[1][1][0], scores.mean(0))


def test_integer_bounds_are_no_integer_arithmetic():
    axes = (Axis("a", 0, 1), Axis("b", 0, 1))
    rows = points(50, axes)
    found = decompose(axes, fit_forest(encode(axes, rows), np.array([r["a"] for r in rows]), 4))
    assert found.main[0] > 0.95


def test_many_atoms_are_merged_with_little_loss(monkeypatch):
    axes = (X0, X1)
    rows = points(300, axes)
    scores = np.array([r["x0"] * r["x1"] for r in rows])
    forest = fit_forest(encode(axes, rows), scores, 8)
    whole = decompose(axes, forest).pairs[0, 1]
    monkeypatch.setattr("autovae.report.interactions.DENSE", 100)
    assert decompose(axes, forest).pairs[0, 1] == pytest.approx(whole, abs=0.01)


def test_constant_scores_have_no_decomposition():
    axes = (X0,)
    found = decompose(axes, fit_forest(encode(axes, points(10, axes)), np.ones(10), 4))
    assert found.main_by_tree.shape == (0, 1)
    assert found.main.tolist() == [0]


def test_an_axis_that_no_tree_splits_has_no_effect():
    axes = (COLOUR, X0)
    rows = [{"colour": "red", "x0": x} for x in (0.1, 0.5, 0.9)]
    for measure in ("choices", "cube"):
        found = decompose(axes, fit_forest(encode(axes, rows), np.array([0.0, 1, 2]), 3), measure=measure)
        assert found.main[0] == pytest.approx(0)


def test_a_cube_of_too_many_corners_is_refused():
    axis = Axis("many", choices=tuple(range(40)))
    rows = [{"many": n} for n in range(40)]
    forest = exact_forest(encode((axis,), rows), np.arange(40.0))
    assert decompose((axis,), forest).main[0] == pytest.approx(1)
    with pytest.raises(ValueError, match="2\\^"):
        decompose((axis,), forest, measure="cube")
