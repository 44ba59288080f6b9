r"""Conditional digits from an unconditional generator: HMC, mean field and MGVI beside a conditional GAN.

    p(xi | y) ~ p_y(G(xi))^alpha N(xi; 0, I),   alpha = 100,  p_y from a digit classifier

A question is answered for every digit; answers are scored by the classifier that was asked (*model*) and by a judge that
was trained on other images, with another architecture (*judge*), and by a Frechet distance to the training images of that
digit in the features of the judge: not an FID, whose features are Inception's, so its numbers stand beside the paper's
only in their order. The test images of the digit show what a perfect generator would score.

Priors are a WGAN and VAEs of this library, so that both kinds of generator are asked the same.
References: Bayesian Reasoning with Trained Neural Networks (Knollmueller, Ensslin, 2021), section 5.1, table 1, figures 1
and 2. Not here: the methods (`digit_answers`), tables and figures (`conditional_digits_report`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import torch
from pydantic import Field, field_validator
from torch import Tensor

from autovae.export.card import load_prior, save_vae
from autovae.export.prior import PriorModule
from autovae.metrics.fidelity import EXTRACTORS
from autovae.registry import lookup
from autovae.reproductions.digit_answers import (
    METHODS,
    VARIATIONAL,
    HMCPlan,
    Plan,
    answer_by_hmc,
    answer_variational,
    score_conditional,
    score_test_images,
    scorer_of,
    thinned,
)
from autovae.reproductions.digit_modules import DigitModules, GANPlan
from autovae.reproductions.notebook import Notebook, StrictModel
from autovae.spec import VAESpec

__all__ = ["Settings", "run"]


class VAEPlan(StrictModel):
    """The VAE that is asked beside the WGAN, by default with normal posteriors and priors."""

    posterior: str = "normal"
    prior: str = "normal"
    latent_dim: int = Field(20, ge=1)
    hidden: tuple[int, ...] = (400, 400)
    epochs: int = Field(10, ge=1)
    batch_size: int = Field(250, ge=1)
    learning_rate: float = Field(1e-3, gt=0)

    def spec(self) -> VAESpec:
        return VAESpec(likelihood="continuous_bernoulli", objective="density", **self.model_dump())


class Settings(StrictModel):
    """What `[short]` and `[full]` of the study file may say."""

    data: str = "mnist"
    gan: GANPlan = GANPlan()
    conditional: GANPlan = GANPlan()
    vae: VAEPlan = VAEPlan()
    priors: tuple[str, ...] = ("wgan", "vae")
    study: str = "digit_generator_v1"  # whose exported winner is the prior "winner"
    methods: tuple[str, ...] = ("cwgan", "hmc", "mean_field", "mgvi")
    digits: tuple[int, ...] = tuple(range(10))
    power: float = Field(100.0, gt=0)
    samples: int = Field(8000, ge=2)
    hmc: HMCPlan = HMCPlan()
    mean_field_iterations: int = Field(1000, ge=1)
    pairs: int = Field(5, ge=1)
    mgvi_rounds: int = Field(5, ge=1)
    inception: str = ""  # a file of Inception-v3's weights: then the FID stands beside the judge's distance

    @field_validator("digits")
    @classmethod
    def _digits(cls, digits: tuple[int, ...]) -> tuple[int, ...]:
        for digit in digits:
            if not 0 <= digit <= 9:
                raise ValueError(f"got the digit {digit}, expected 0 to 9")
        if not digits or len(set(digits)) < len(digits):
            raise ValueError(f"got digits {digits}, expected one or more different ones")
        return digits

    @field_validator("priors")
    @classmethod
    def _priors(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            lookup(PRIORS, name, "prior")
        return names

    @field_validator("methods")
    @classmethod
    def _methods(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            lookup(dict.fromkeys(METHODS), name, "method")
        if "hmc" not in names:
            raise ValueError(f"got methods {names}, expected hmc among them: the others are compared with it")
        return names

    @property
    def plan(self) -> Plan:
        """What is asked, and how long each method may try."""
        return Plan(**{field.name: getattr(self, field.name) for field in fields(Plan)})


# -- priors -----------------------------------------------------------------------------------------------------------


def _wgan(settings: Settings, modules: DigitModules, notebook: Notebook, device: torch.device) -> PriorModule:
    return modules.prior(device)


def _vae(settings: Settings, modules: DigitModules, notebook: Notebook, device: torch.device) -> PriorModule:
    """The VAE as it was exported, trained where there is none yet."""
    from autovae.training.loop import fit

    folder = notebook.place("vae")
    if not (folder / "card.json").is_file():
        notebook.say("the VAE")
        save_vae(fit(settings.vae.spec(), modules.data, device=str(device)).model, modules.data, folder)
    return load_prior(folder).to(device)


def _winner(settings: Settings, modules: DigitModules, notebook: Notebook, device: torch.device) -> PriorModule:
    """The winner of a study, from its results folder beside this one."""
    folder = notebook.path.parent / settings.study / "winners" / "1"
    if not (folder / "model.safetensors").is_file():
        raise ValueError(f"{folder} holds no exported winner; run the study first: autovae run {settings.study}")
    return load_prior(folder).to(device)


PRIORS: dict[str, Callable[[Settings, DigitModules, Notebook, torch.device], PriorModule]] = {
    "wgan": _wgan,
    "vae": _vae,
    "winner": _winner,
}


def _belief(prior: PriorModule) -> str:
    """What a VAE believes, in a few words; nothing for a GAN."""
    spec = prior.card.get("spec", {})
    if not spec:
        return ""
    return f"{spec['posterior']} | {spec['prior']}, {spec['likelihood']}, {spec['latent_dim']} latents, {spec['epochs']} epochs"


def inception_of(modules: DigitModules, weights: str) -> Callable[[Tensor], Tensor]:
    """Features of Inception-v3 at images. Raises `ValueError` where the file does not hold its weights."""
    extractor = EXTRACTORS["inception"](modules.data, weights=weights)
    return lambda images: extractor(images.clamp(0, 1)).values


# -- all of it --------------------------------------------------------------------------------------------------------


def run(settings: Settings, notebook: Notebook, data_dir: Path | None, device: torch.device) -> dict[str, Any]:
    """Train what is missing, answer for every digit by every method, write tables, figures and README; the summary."""
    from autovae.reproductions.conditional_digits_report import write_report

    modules = DigitModules.of(
        settings.data, settings.gan, data_dir, notebook.say, conditional=settings.conditional, device=device
    )
    see = inception_of(modules, settings.inception) if settings.inception else None
    plan, scorer = settings.plan, scorer_of(modules, settings.digits, device)
    if see is not None:
        real = {digit: see(thinned(modules.images_of(digit), settings.samples)) for digit in settings.digits}
        scorer = replace(scorer, inception=see, real_inception=real)
    scorer.refuse_few(min(plan.samples, plan.hmc.chains * plan.hmc.draws))
    found = {
        ("", "test images"): notebook.once("test_images", score_test_images, modules, plan, scorer),
        ("", "cwgan"): {},
    }
    for name in settings.priors:
        prior = PRIORS[name](settings, modules, notebook, device)
        found[name, "hmc"] = notebook.once(f"{name}_hmc", answer_by_hmc, prior, scorer, plan, notebook.say)
        found[name, "hmc"]["about"] = _belief(prior)
        for method in [method for method in VARIATIONAL if method in settings.methods]:
            parts = {
                str(digit): notebook.once(
                    f"{name}_{method}_{digit}", answer_variational, method, prior, scorer, plan, digit, notebook.say
                )
                for digit in settings.digits
            }  # fmt: skip
            found[name, method] = {
                "rows": {digit: part["row"] for digit, part in parts.items()},
                "pictures": {digit: part["picture"] for digit, part in parts.items()},
                "solving_seconds": sum(part["solving_seconds"] for part in parts.values()),
                "machine": parts[str(plan.digits[0])]["machine"],
            }
    if "cwgan" in settings.methods:
        found["", "cwgan"] = notebook.once("cwgan", score_conditional, modules, plan, scorer)
    return write_report(settings, {key: one for key, one in found.items() if one}, modules, notebook)
