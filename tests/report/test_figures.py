from __future__ import annotations

import itertools
import xml.etree.ElementTree as ElementTree
from collections import Counter

import matplotlib
import numpy as np
import pytest
from PIL import Image

from autovae.report.figures.gain import gain_figure
from autovae.report.figures.importance import curve_figure, importance_figure
from autovae.report.figures.pairs import pair_figure
from autovae.report.figures.search import history_figure, learning_figure, pareto_figure
from autovae.report.finals import Gain
from autovae.report.importance import importance_of
from autovae.report.pictures import mosaic, sample_grid
from autovae.report.theme import COLOURS, save_figure, svg_of, themed_svg, tip


def row(number, score, state="COMPLETE", posterior="normal", prior="normal", likelihood="bernoulli", **more):
    return {"number": number, "state": state, "score": score, "posterior": posterior, "prior": prior,
            "likelihood": likelihood, "reason": "no & <none>", **more}  # fmt: skip


def test_a_figure_is_written_whole_and_the_same_every_time(figure, tmp_path):
    for name in ("a.svg", "b.svg", "a.png", "a.pdf"):
        save_figure(figure, tmp_path / name)
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()
    assert Image.open(tmp_path / "a.png").size[0] > 100
    assert {path.suffix for path in tmp_path.iterdir()} == {".svg", ".png", ".pdf"}


def test_drawing_leaves_the_global_style_alone(figure):
    before = dict(matplotlib.rcParams)
    history_figure([row(0, 1.0)])
    assert figure.axes[0].xaxis.label.get_color() == COLOURS["muted"]  # and yet a figure has the style
    svg_of(figure)
    assert dict(matplotlib.rcParams) == before


def test_what_can_be_pointed_at_says_something(figure):
    tip(figure.axes[0].lines[0], 'a "b" <c> & d\ne')
    text = svg_of(figure)
    ElementTree.fromstring(text[text.index("<svg") :])
    assert "<title>a ”b” &lt;c&gt; &amp; d e</title>" in text


def test_a_themed_figure_has_no_colours_of_its_own_and_no_ids_of_others(figure):
    text = themed_svg(svg_of(figure), "one", "a line")
    root = ElementTree.fromstring(text.replace("<svg ", '<svg xmlns:xlink="http://www.w3.org/1999/xlink" ', 1))
    assert root.get("aria-label") == "a line"
    assert not any(colour in text for colour in COLOURS.values())
    assert "var(--muted)" in text
    assert all(node.get("id", "one-").startswith("one-") for node in root.iter())
    assert "<style" not in text


@pytest.mark.parametrize("shape", [(5, 8, 8), (5, 1, 6, 9), (5, 3, 4, 4), (5, 4, 4, 3)])
def test_pictures_become_a_mosaic(shape):
    sheet = mosaic(np.random.default_rng(0).random(shape), 3)
    assert sheet is not None
    assert 0 <= sheet.min() <= sheet.max() <= 1
    assert sheet.ndim == (3 if 3 in shape[1:] else 2)


def test_a_mosaic_keeps_every_pixel():
    x = np.arange(2 * 3 * 4).reshape(2, 3, 4) / 24
    np.testing.assert_allclose(mosaic(x, 2)[:, :4], x[0])
    np.testing.assert_allclose(mosaic(x, 2)[:, 5:], x[1])


def test_standardised_pictures_are_stretched():
    sheet = mosaic(np.random.default_rng(0).normal(size=(4, 5, 5)), 2)
    assert (sheet.min(), sheet.max()) == (0, 1)


@pytest.mark.parametrize("shape", [(9, 5), (1, 300), (3, 2, 7, 5), (4, 1)])
def test_other_shapes_become_lines(shape):
    x = np.random.default_rng(0).normal(size=shape)
    assert mosaic(x, 3) is None
    made = sample_grid(x, 3)
    assert len(made.axes) == shape[0]


def test_a_grid_of_nothing_is_an_error():
    with pytest.raises(ValueError, match="at least one point"):
        sample_grid(np.empty((0, 8, 8)))


def test_nan_is_drawn_as_nothing():
    assert not mosaic(np.full((4, 3, 3), np.nan), 4)[:, :3].any()
    panel = sample_grid(np.full((4, 3), np.nan)).axes[0]
    assert np.isfinite(panel.get_ylim()).all()


def markers(figure):
    """How many points are drawn with which marker."""
    return Counter(line.get_marker() for line in figure.axes[0].lines if line.get_marker() != "None")


GOOD = [row(n, 1 + 0.01 * n) for n in range(20)]
LOST = float("nan")


@pytest.mark.parametrize(
    ("rows", "shown"),
    [
        ([], {}),
        ([row(0, 1.0)], {"o": 1}),
        ([row(0, LOST, "FAIL")], {"x": 1}),
        ([row(n, 2.0) for n in range(3)], {"o": 3}),
        ([*GOOD, row(20, 1e6), row(21, LOST, "FAIL"), row(22, LOST, "PRUNED")], {"o": 20, "^": 1, "x": 1}),
    ],
    ids=["none", "one", "failed", "equal", "outlier"],
)
def test_the_history_shows_every_trial_once(rows, shown):
    assert markers(history_figure(rows)) == shown


def test_the_history_joins_the_best_so_far():
    axes = history_figure([row(n, score) for n, score in enumerate((3.0, 2.0, 2.5, 1.0))]).axes[0]
    best = next(line for line in axes.lines if line.get_label() == "best")
    assert best.get_ydata().tolist() == [3, 2, 2, 1]


def test_an_interval_of_gains_spans_low_to_high_and_a_dot_is_a_seed():
    gains = {"one": Gain([0.1, 0.3], 0.2, 0.05, 0.35, 0.95), "unknown": Gain([], LOST, -np.inf, np.inf, 0.95)}
    axes = gain_figure(gains).axes[0]
    assert [line.get_xdata().tolist() for line in axes.lines[:3]] == [[0.1, 0.3], [0.05, 0.35], [0.2]]
    assert len(axes.lines) == 5  # the unknown gain has no bar; the last line is zero
    assert [label.get_text() for label in axes.get_yticklabels()] == list(gains)


def test_importance_bars_are_the_values_the_largest_first():
    heads, families = ("bernoulli", "normal"), ("normal", "laplace")
    cells = itertools.product(heads, families, families)
    rows = [
        row(n, (head == "normal") + 0.3 * (q == "laplace"), likelihood=head, posterior=q, prior=p)
        for n, (head, q, p) in enumerate(cells)
    ]
    found = importance_of(rows, resamples=0)
    axes = importance_figure(found).axes[0]
    widths = [bar.get_width() for bar in axes.patches]
    assert widths[:3] == sorted(found.values.diagonal(), reverse=True)
    assert [label.get_text() for label in axes.get_yticklabels()][:2] == ["likelihood", "posterior"]
    curve = curve_figure(found, 0, rows).axes[0]
    assert sum(line.get_marker() in ("o", "^") for line in curve.lines) == len(rows)


def test_learning_curves_mark_the_winner_and_the_matched_normal():
    rows = [row(0, 1.0), row(1, 1.0, posterior="laplace"), row(2, 1.0, prior="gumbel")]
    losses = {0: [3.0, 2.0], 1: [3.0, 1.0], 2: [3.0, None]}
    axes = learning_figure(rows, losses, {"posterior": "laplace", "prior": "normal"}).axes[0]
    colours = {line.get_label(): (line.get_color(), line.get_ydata()[0]) for line in axes.lines}
    assert colours["winner"] == (COLOURS["first"], 3.0)
    assert colours["matched normal"] == (COLOURS["second"], 3.0)
    assert len(axes.lines) == 3
    heterogeneous = {"posterior": ["laplace", "normal"], "prior": "normal"}
    labels = {line.get_label() for line in learning_figure(rows, losses, heterogeneous).axes[0].lines}
    assert "matched normal" in labels
    assert "winner" not in labels


def test_infinite_pairs_are_hatched_and_say_so():
    text = svg_of(pair_figure([row(0, 1.0), row(1, 2.0, posterior="cauchy", prior="cauchy")]))
    assert "posterior cauchy, prior normal: the divergence is infinite" in text
    assert "posterior normal, prior cauchy: not tried" in text
    assert "best 1.0000" in text


def test_families_that_are_not_known_are_shown():
    assert "vampprior" in svg_of(pair_figure([row(0, 1.0, prior="vampprior")]))


def test_the_front_joins_what_no_other_beats():
    rows = [row(n, s, kid=k) for n, (s, k) in enumerate([(1.0, 3.0), (2.0, 1.0), (3.0, 2.0)])]
    step = pareto_figure(rows, "kid", "KID").axes[0].lines[-1]
    assert list(zip(*step.get_data(), strict=True)) == [(1.0, 3.0), (2.0, 1.0)]
