"""A damaged image asked of a saved prior: the right half is seen, the picture is drawn, bad input is named."""

import pytest
import torch

from autovae.cli import main
from autovae.data.datasets import load
from autovae.export.card import save_vae
from autovae.model.vae import build
from autovae.reproductions.ask_image import SIDES, hidden
from autovae.spec import VAESpec


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


@pytest.mark.parametrize("side", SIDES)
def test_half_of_an_image_is_hidden(side):
    mask = hidden(side, (8, 6))
    assert mask.sum() == 24
    assert torch.equal(hidden("left", (8, 6)) + hidden("right", (8, 6)), torch.ones(8, 6))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
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
