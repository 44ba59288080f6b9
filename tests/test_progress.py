"""What is said while a study runs."""

import math

from autovae.progress import LiveProgress
from autovae.search.events import Progress


def lines(capsys, *steps):
    show = LiveProgress("mine", None)
    for step in steps:
        show._last_line = -math.inf
        show(step)
    return capsys.readouterr().err.splitlines()


def test_a_line_says_where_the_search_is_how_fast_and_what_is_best(capsys):
    first, second = lines(
        capsys,
        Progress("search", 0, 64, epoch=3, epochs=20, rate=0.25),
        Progress("search", 16, 64, 1, 20, 1.2345, "logistic|normal, normal, alpha 1", failed=1, pruned=7, rate=12.0),
    )
    assert first == "mine: 0/64 trials, epoch 3/20, 4 s a VAE epoch"
    assert "16/64 trials" in second
    assert "12 VAE epochs/s" in second
    assert "best 1.2345 bits/dim (logistic|normal, normal, alpha 1)" in second
    assert "7 pruned, 1 failed" in second
    assert second.endswith("left")


def test_scoring_the_finals_says_how_far_it_is(capsys):
    found = lines(capsys, Progress("scores", 0, 8), Progress("scores", 3, 8))
    assert found == ["mine: finals: 0/8 scores over seeds", "mine: finals: 3/8 scores over seeds"]


def test_the_finals_have_their_own_line(capsys):
    (line,) = lines(capsys, Progress("finals", 0, 30, epoch=5, epochs=20, rate=2.0))
    assert line == "mine: finals: 30 fits over seeds, epoch 5/20, 2 VAE epochs/s"
