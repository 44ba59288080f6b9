r"""The trained networks behind questions about handwritten digits: generators, classifiers, judges.

    generator, conditional     WGANs of the training images, `model.gan`
    digit, odd, closed_circle  classifiers of one half of the images: they pose the questions
    judges                     classifiers of the other half: they only score answers

Each is trained once, on `device`, then read from the user cache; training times are on the cards.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from autovae.data.batches import network_input
from autovae.data.datasets import Data, load
from autovae.export.prior import PriorModule
from autovae.model.classifiers import JUDGES, Classifier
from autovae.model.gan import GANSettings, Generator, train_gan
from autovae.model.trained_classifiers import classifier
from autovae.reproductions.settings import GANPlan

__all__ = ["DigitModules"]


@dataclass(frozen=True)
class DigitModules:
    """Networks of one data set of digits, trained on first use."""

    data: Data
    gan: GANPlan
    conditional_gan: GANPlan
    cache: Path | None = None
    say: Callable[[str], None] = field(default=lambda text: None)
    device: torch.device | str = "cpu"
    """For training; the networks are returned on the CPU."""

    @classmethod
    def of(
        cls, name: str, gan: GANPlan, data_dir: Path | None, say: Callable[[str], None], *,
        conditional: GANPlan | None = None, cache: Path | None = None, device: torch.device | str = "cpu",
    ) -> DigitModules:  # fmt: skip
        """The modules of a named data set. Raises `ValueError` if it is missing or has no labelled grey images."""
        data = load(name, data_dir)
        if data.train.y is None:
            raise ValueError(f"{name} has no labels; expected digits with their values, such as mnist")
        if data.support != "unit" or len(data.shape) != 2:
            raise ValueError(
                f"{name} holds {data.support} points of shape {data.shape}; expected grey images of digits"
            )
        return cls(data, gan, conditional or gan, cache, say, device)

    @cached_property
    def images(self) -> Tensor:
        """The training images, (N, *shape) in [0, 1]."""
        return network_input(self.data.train.x, self.data)

    @property
    def labels(self) -> Tensor:
        assert self.data.train.y is not None  # checked in `of`
        return self.data.train.y.long()

    def images_of(self, digit: int) -> Tensor:
        """The training images of one digit."""
        if not 0 <= digit <= 9:
            raise ValueError(f"got the digit {digit}; expected 0 to 9")
        return self.images[self.labels == digit]

    @cached_property
    def generator(self) -> Generator:
        self.say("the generator (WGAN)")
        return train_gan(
            self.images, self.data.digest, shape=self.data.shape, settings=GANSettings(**self.gan.model_dump()), cache=self.cache,
            say=self.say, device=self.device,
        )  # fmt: skip

    @cached_property
    def conditional(self) -> Generator:
        self.say("the conditional generator (cWGAN)")
        return train_gan(
            self.images, self.data.digest, shape=self.data.shape, y=self.labels,
            settings=GANSettings(**self.conditional_gan.model_dump()), cache=self.cache, say=self.say, device=self.device,
        )  # fmt: skip

    def prior(self, device: torch.device | str = "cpu") -> PriorModule:
        """The WGAN as a prior module."""
        return PriorModule.from_decoder(self.generator, latent_dim=self.gan.latent_dim).to(device)

    def network(self, task: str) -> Classifier:
        """The classifier that poses questions of a task."""
        self.say(f"the classifier ({task})")
        return classifier(self.data, task, part="first_half", cache=self.cache, say=self.say, device=self.device)

    def judge(self, place: int = 0) -> Classifier:
        """The judge at this place of JUDGES; the first scores."""
        self.say("a judge")
        return classifier(
            self.data, "digit", settings=JUDGES[place], cache=self.cache, say=self.say, device=self.device
        )
