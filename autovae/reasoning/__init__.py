"""Latent reasoning: questions asked of a prior module, and the methods that answer them."""

from __future__ import annotations

from autovae.reasoning.constraints import Categorical, Constraint, Criterion, Gaussian, Masked
from autovae.reasoning.draws import Draws
from autovae.reasoning.hmc import HMC
from autovae.reasoning.logic import And, Not, Or, Relation, truth_table
from autovae.reasoning.map import MAP
from autovae.reasoning.mean_field import ADVIStep, MeanField
from autovae.reasoning.method import Method
from autovae.reasoning.mgvi import MGVI, GeoVI
from autovae.reasoning.posterior import LatentPosterior
from autovae.reasoning.question import ask
from autovae.reasoning.resampling import SIR, Rejection
from autovae.reasoning.tables import CONSTRAINTS, METHODS

__all__ = [
    "CONSTRAINTS",
    "ADVIStep",
    "GeoVI",
    "HMC",
    "MAP",
    "METHODS",
    "MGVI",
    "MeanField",
    "Rejection",
    "SIR",
    "And",
    "Categorical",
    "Constraint",
    "Criterion",
    "Draws",
    "Gaussian",
    "LatentPosterior",
    "Masked",
    "Method",
    "Not",
    "Or",
    "Relation",
    "ask",
    "truth_table",
]
