"""Questions asked of a saved prior: a label, a damaged image; the picture is drawn, bad input is named."""

import json

import numpy as np
import pytest
import torch

from autovae.cli import main
from autovae.data.datasets import load
from autovae.export.card import save_vae
from autovae.model.vae import build
from autovae.reasoning.evidence import SIDES, hidden
from autovae.spec import VAESpec


@pytest.fixture
def networks(tmp_path, monkeypatch):
    """Trained in a folder of the test's own, and briefly."""
    monkeypatch.setattr("autovae.model.cache.cache_folder", lambda: tmp_path / "networks")
    monkeypatch.setattr("autovae.model.classifiers._epochs", lambda settings, points: 20)


@pytest.fixture(scope="module")
def prior(tmp_path_factory):
    data = load("digits")
    spec = VAESpec(latent_dim=2, hidden=(8,))
    return save_vae(build(spec, data.domain), data, tmp_path_factory.mktemp("prior") / "prior")


def test_in_painting_from_the_command_line(prior, tmp_path, capsys):
    code = main(
        [
            "reason",
            str(prior),
            "--image",
            "digits:3",
            "--hide",
            "right",
            "--method",
            "map",
            "--to",
            str(tmp_path / "a.png"),
        ]
    )
    assert code == 0
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    assert "rmse_of_mean" in capsys.readouterr().out


def test_a_label_from_the_command_line(prior, tmp_path, capsys, networks):
    command = ["reason", str(prior), "--label", "3", "--method", "sir", "--draws", "50", "--judge", "--json"]
    assert main([*command, "--to", str(tmp_path / "three.png")]) == 0
    assert (tmp_path / "three.png").read_bytes().startswith(b"\x89PNG")
    values = json.loads(capsys.readouterr().out)
    assert 0 <= values["classifier_agrees"] <= 1
    assert values["classifier_accuracy"] > 0.7
    assert values["judge_accuracy"] > 0.5


def test_data_without_labels_are_named(tmp_path, capsys):
    x = np.random.default_rng(0).random((60, 4))
    np.savez(tmp_path / "mine.npz", x=x)
    data = load(tmp_path / "mine.npz")
    folder = save_vae(build(VAESpec(latent_dim=2, hidden=(8,), likelihood="normal"), data.domain), data, tmp_path / "p")
    for more, words in (
        ([], "--dataset"),
        (["--dataset", str(tmp_path / "mine.npz")], "no labels"),
        (["--dataset", "digits"], "shape"),
    ):
        assert main(["reason", str(folder), "--label", "1", *more]) == 2
        assert words in capsys.readouterr().err


@pytest.mark.parametrize("side", SIDES)
def test_half_of_an_image_is_hidden(side):
    mask = hidden(side, (8, 6))
    assert mask.sum() == 24
    assert torch.equal(hidden("left", (8, 6)) + hidden("right", (8, 6)), torch.ones(8, 6))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "got no evidence"),
        (["--hide", "left", "--label", "3"], "no image"),
        (["--label", "12"], "the labels of digits are 0, 1, 2, 3, 4, 5, 6, 7, 8, 9"),
        (["--label", "three"], "the labels of digits are 0, 1"),
        (["--label", "3", "--power", "0"], "power"),
        (["--label", "3", "--dataset", "digitss"], "--dataset"),
        (["--image", "digits:3", "--source", "flow"], "it has prior"),
        (["--image", "digits:99999"], "99999"),
        (["--image", "nothing.png"], "cannot read"),
        (["--image", "digits:3", "--hide", "lefft"], "'left'"),
        (["--image", "digits:3", "--noise", "0"], "noise"),
        (["--image", "digits:3", "--method", "hmcc"], "'hmc'"),
        (["--image", "digits:3", "--to", "x.doc"], "x.doc"),
    ],
)
def test_bad_questions_are_named(prior, tmp_path, capsys, arguments, words):
    assert main(["reason", str(prior), "--to", str(tmp_path / "a.png"), *arguments]) == 2
    error = capsys.readouterr().err
    assert words in error
    assert len(error.strip().splitlines()) == 1
