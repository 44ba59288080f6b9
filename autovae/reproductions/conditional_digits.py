r"""Conditional digits from an unconditional generator: HMC, mean field and MGVI against a conditional GAN.

    p(xi | y) ~ p_y(G(xi))^alpha N(xi; 0, I),   alpha = 100,  p_y from a digit classifier

Each digit is one question. Answers are scored by the classifier of the question (*model*), by a *judge* with another
architecture trained on other images, and by the Frechet distance to the digit's training images in the judge's features.
That is not an FID, whose features are Inception's; only the order is comparable with the paper's. The digit's test images
show what a perfect generator would score. Priors are a WGAN and VAEs of this library.
References: Bayesian Reasoning with Trained Neural Networks (Knollmueller, Ensslin, 2021), section 5.1, table 1, figures 1
and 2. Not here: the methods (`digit_answers`), tables and figures (`conditional_digits_report`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from autovae.export.card import load_prior, save_vae
from autovae.export.prior import PriorModule
from autovae.metrics.fidelity import EXTRACTORS
from autovae.reproductions.digit_answers import (
    VARIATIONAL,
    answer_by_hmc,
    answer_variational,
    score_conditional,
    score_test_images,
    scorer_of,
    thinned,
)
from autovae.reproductions.digit_modules import DigitModules
from autovae.reproductions.notebook import Notebook
from autovae.reproductions.settings import ConditionalSettings

__all__ = ["run"]


# -- priors -----------------------------------------------------------------------------------------------------------


def _wgan(
    settings: ConditionalSettings, modules: DigitModules, notebook: Notebook, device: torch.device
) -> PriorModule:
    return modules.prior(device)


def _vae(settings: ConditionalSettings, modules: DigitModules, notebook: Notebook, device: torch.device) -> PriorModule:
    """The exported VAE, trained first if missing."""
    from autovae.training.loop import fit

    folder = notebook.place("vae")
    if not (folder / "card.json").is_file():
        notebook.say("the VAE")
        save_vae(fit(settings.vae.spec(), modules.data, device=str(device)).model, modules.data, folder)
    return load_prior(folder).to(device)


def _winner(
    settings: ConditionalSettings, modules: DigitModules, notebook: Notebook, device: torch.device
) -> PriorModule:
    """The winner of a study, from its folder in the same results."""
    folder = notebook.path.parent / settings.study / "winners" / "1"
    if not (folder / "model.safetensors").is_file():
        raise ValueError(f"{folder} holds no exported winner; run the study first: autovae run {settings.study}")
    return load_prior(folder).to(device)


PRIORS: dict[str, Callable[[ConditionalSettings, DigitModules, Notebook, torch.device], PriorModule]] = {
    "wgan": _wgan,
    "vae": _vae,
    "winner": _winner,
}


def _belief(prior: PriorModule) -> str:
    """A VAE's belief in words; empty for a GAN."""
    spec = prior.card.get("spec", {})
    if not spec:
        return ""
    return f"{spec['posterior']} | {spec['prior']}, {spec['likelihood']}, {spec['latent_dim']} latents, {spec['epochs']} epochs"


def inception_of(modules: DigitModules, weights: str) -> Callable[[Tensor], Tensor]:
    """Features of Inception-v3 at images. Raises `ValueError` if the file holds other weights."""
    extractor = EXTRACTORS["inception"](modules.data, weights=weights)
    return lambda images: extractor(images.clamp(0, 1)).values


# -- all of it --------------------------------------------------------------------------------------------------------


def run(
    settings: ConditionalSettings, notebook: Notebook, data_dir: Path | None, device: torch.device
) -> dict[str, Any]:
    """Train what is missing, answer for every digit by every method, write tables, figures and README; the summary."""
    from autovae.reproductions.conditional_digits_report import write_report

    modules = DigitModules.of(
        settings.data, settings.gan, data_dir, notebook.say, conditional=settings.conditional, device=device
    )
    see = inception_of(modules, settings.inception) if settings.inception else None
    scorer = scorer_of(modules, settings.digits, device)
    if see is not None:
        real = {digit: see(thinned(modules.images_of(digit), settings.samples)) for digit in settings.digits}
        scorer = replace(scorer, inception=see, real_inception=real)
    scorer.refuse_few(min(settings.samples, settings.hmc.chains * settings.hmc.draws))
    found = {
        ("", "test images"): notebook.once("test_images", score_test_images, modules, settings, scorer),
        ("", "cwgan"): {},
    }
    for name in settings.priors:
        prior = PRIORS[name](settings, modules, notebook, device)
        found[name, "hmc"] = notebook.once(f"{name}_hmc", answer_by_hmc, prior, scorer, settings, notebook.say)
        found[name, "hmc"]["about"] = _belief(prior)
        for method in [method for method in VARIATIONAL if method in settings.methods]:
            parts = {
                str(digit): notebook.once(
                    f"{name}_{method}_{digit}", answer_variational, method, prior, scorer, settings, digit, notebook.say
                )
                for digit in settings.digits
            }  # fmt: skip
            found[name, method] = {
                "rows": {digit: part["row"] for digit, part in parts.items()},
                "pictures": {digit: part["picture"] for digit, part in parts.items()},
                "solving_seconds": sum(part["solving_seconds"] for part in parts.values()),
                "machine": parts[str(settings.digits[0])]["machine"],
            }
    if "cwgan" in settings.methods:
        found["", "cwgan"] = notebook.once("cwgan", score_conditional, modules, settings, scorer)
    return write_report(settings, {key: one for key, one in found.items() if one}, modules, notebook)
