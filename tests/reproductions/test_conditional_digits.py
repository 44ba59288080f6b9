"""Conditional digits: chains of several questions in one tensor, scores, bad input, and the whole of it in small."""

from __future__ import annotations

import csv
import dataclasses

import pytest
import torch
from pydantic import ValidationError
from torch import nn

from autovae.export.prior import PriorModule
from autovae.reasoning.constraints import Categorical, Scene
from autovae.reproductions.conditional_digits import run
from autovae.reproductions.conditional_digits_report import PAPER
from autovae.reproductions.digit_answers import LabelOfRow, Scorer, answer_by_hmc, thinned
from autovae.reproductions.files import load_reproduction
from autovae.reproductions.notebook import Notebook
from autovae.reproductions.settings import ConditionalSettings, GANPlan, HMCPlan, VAEPlan


class Net(nn.Module):
    """Three classes of points in the plane, with features."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 3)
        with torch.no_grad():
            self.layer.weight.copy_(torch.eye(3, 4) * 8)
            self.layer.bias.zero_()

    def features(self, x: torch.Tensor) -> torch.Tensor:
        return x[:, :2]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x.flatten(1))


def small_prior() -> PriorModule:
    generator = torch.Generator().manual_seed(0)
    layer = nn.Linear(4, 4)
    with torch.no_grad():
        layer.weight.copy_(torch.randn(4, 4, generator=generator))
        layer.bias.fill_(0.5)
    return PriorModule.from_decoder(nn.Sequential(layer, nn.Sigmoid()), shape=(2, 2))


def test_rows_of_a_batch_have_their_own_labels() -> None:
    net, x = Net(), torch.rand(7, 2, 2)
    together = LabelOfRow(net, [2, 0, 1]).log_likelihood(Scene(x))
    alone = torch.stack([Categorical(net, y).log_likelihood(Scene(x)) for y in (2, 0, 1)])
    assert torch.equal(together, alone[torch.arange(7) % 3, torch.arange(7)])


def test_chains_of_several_digits_in_one_tensor_answer_their_own_question() -> None:
    prior, net = small_prior(), Net()
    with torch.no_grad():
        images = prior(torch.randn(4000, 4, generator=torch.Generator().manual_seed(1)))
        real = {digit: net.features(images[net(images).argmax(1) == digit].flatten(1)) for digit in range(3)}
    plan = ConditionalSettings(
        digits=(0, 1, 2), power=20, samples=160, hmc=HMCPlan(chains=2, burn_in=10, warmup=50, draws=80)
    )
    found = answer_by_hmc(prior, Scorer(net, net, real), plan, lambda text: None)
    for digit in "012":
        row = found["rows"][digit]
        assert row["accuracy_model"] > 0.9
        assert row["rhat_mean"] < 1.2
        assert row["frechet"] < 1
        assert len(found["warmup"][digit]["distance"]) == 2


def test_thinning_is_even_and_keeps_what_is_few() -> None:
    xi = torch.arange(10.0)[:, None]
    assert thinned(xi, 4)[:, 0].tolist() == [0, 3, 6, 9]
    assert thinned(xi, 20) is xi


def test_the_paper_s_means_agree_with_its_digits_but_for_one() -> None:
    """The column of all digits is the mean of the others, up to their rounding; the FID of mean field is not."""
    off = {
        (method, name)
        for method, scores in PAPER.items()
        for name, (whole, *digits) in scores.items()
        if abs(whole - sum(digits) / 10) > (0.1 if name == "frechet" else 0.006)
    }
    assert off == {("mean_field", "frechet")}


def test_bad_settings_are_refused() -> None:
    with pytest.raises(ValidationError, match="got the digit 10, expected 0 to 9"):
        ConditionalSettings(digits=(3, 10))
    with pytest.raises(ValidationError, match="different ones"):
        ConditionalSettings(digits=(3, 3))
    with pytest.raises(ValidationError, match="unknown prior 'gan'"):
        ConditionalSettings(priors=("gan",))
    with pytest.raises(ValidationError, match="unknown method 'adivi'"):
        ConditionalSettings(methods=("hmc", "adivi"))
    with pytest.raises(ValidationError, match="expected hmc among them"):
        ConditionalSettings(methods=("cwgan",))
    assert load_reproduction("conditional_digits", full=True).settings.samples == 8000


def test_too_few_samples_for_a_distance_are_refused() -> None:
    net = Net()
    scorer = Scorer(net, net, {0: torch.rand(50, 2)})
    with pytest.raises(ValueError, match="got 2 samples for a Frechet distance of 2 features"):
        scorer.score(torch.rand(2, 2, 2), 0)
    with pytest.raises(ValueError, match="got 2 samples of a digit for a Frechet distance of 2 features"):
        scorer.refuse_few(2)
    scorer.refuse_few(3)


def test_the_fid_stands_beside_where_inception_is_at_hand(tmp_path) -> None:
    net, x = Net(), torch.rand(50, 2, 2)
    plain = Scorer(net, net, {0: torch.rand(50, 2)})
    seen = dataclasses.replace(plain, inception=lambda x: x.flatten(1)[:, :3], real_inception={0: x.flatten(1)[:, :3]})
    assert seen.score(x, 0)["fid"] == pytest.approx(0, abs=1e-6)
    assert seen.only(0).cpu().score(x, 0)["fid"] == pytest.approx(0, abs=1e-6)
    assert "fid" not in plain.score(x, 0)
    assert "fid" not in seen.score(x[:3], 0)  # fewer images than features
    with pytest.raises(ValueError, match="does not hold the weights of Inception-v3"):
        run(ConditionalSettings(data="digits", inception="nowhere.pt"), Notebook(tmp_path), None, torch.device("cpu"))


@pytest.mark.slow
def test_the_whole_of_it_on_small_networks(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("autovae.model.classifiers._epochs", lambda settings, points: 1)
    settings = ConditionalSettings(
        data="digits", gan=GANPlan(steps=6, latent_dim=4, width=2), conditional=GANPlan(steps=6, latent_dim=4, width=2),
        vae=VAEPlan(latent_dim=3, hidden=(16,), epochs=1), digits=(1, 3), samples=120, power=2, mgvi_rounds=1,
        hmc=HMCPlan(chains=2, burn_in=5, warmup=90, draws=60), mean_field_iterations=5,
    )  # fmt: skip
    notebook = Notebook(tmp_path / "conditional_digits")
    notebook.open({"name": "conditional_digits"})
    # Test images of one digit are fewer than the judge's features on this small set.
    monkeypatch.setattr("autovae.reproductions.digit_answers.features", lambda judge, images: images[:, 2:4, 2].cpu())
    found = run(settings, notebook, None, torch.device("cpu"))
    assert [(row["prior"], row["method"]) for row in found["rows"]] == [
        ("", "test images"), ("", "cwgan"), ("wgan", "hmc"), ("wgan", "mean_field"), ("wgan", "mgvi"), ("vae", "hmc"),
        ("vae", "mean_field"), ("vae", "mgvi"),
    ]  # fmt: skip
    with (tmp_path / "conditional_digits" / "table.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["fid_paper"] for row in rows if row["method"] == "hmc" and row["digit"] == "3"} == {"25.6"}
    figures = {path.name for path in (tmp_path / "conditional_digits" / "figures").iterdir()}
    assert figures == {"samples_wgan.png", "samples_vae.png", "warmup_wgan.png", "warmup_vae.png"}
    assert run(settings, notebook, None, torch.device("cpu"))["rows"] == found["rows"]
