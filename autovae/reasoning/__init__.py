"""Latent reasoning: condition a prior module on evidence, and draw from the posterior of its source.

question       how to ask in one call: `ask`
constraints    which evidence there is: classes, measurements, masks, criteria
logic          relations between classes of objects, And, Or, Not
tables         the tables CONSTRAINTS and METHODS
posterior      the density of xi given evidence: `LatentPosterior`
method         the contract of all methods
hmc            Hamiltonian Monte Carlo, with `trajectory` (its steps) and `adaptation` (its warm-up)
mean_field     independent normals
mgvi           MGVI and geoVI
map            the posterior mode
resampling     rejection and importance resampling of the prior
draws          what a method returns: draws with diagnostics
gradient       fast gradients of the evidence, with `pullbacks` (networks layer by layer)
"""

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
