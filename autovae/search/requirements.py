"""Requirements of a study on its data and on installed packages, checked before training."""

from __future__ import annotations

from dataclasses import replace

from autovae.beliefs.flows import import_zuko
from autovae.beliefs.likelihoods import check_support
from autovae.data.datasets import Data
from autovae.search.extras import NEEDS
from autovae.search.parameters import Choices
from autovae.search.study import Study

__all__ = ["check_requirements", "fit_likelihoods"]


def check_requirements(study: Study, data: Data, trials: int) -> None:
    """Raise `ValueError` if an objective or a baseline is not available for these data or in this installation."""
    for name in study.file.score.also:
        if reason := NEEDS.get(name, lambda data: "")(data):
            raise ValueError(f"{study.name}: {reason}")
    if "flow" not in study.learned_priors_for(trials):
        return
    try:
        import_zuko()
    except ImportError as error:
        raise ValueError(f"{study.name} has a flow prior among its baselines: {error}") from None


def fit_likelihoods(study: Study, data: Data, own_data: bool) -> tuple[Study, list[str]]:
    """The study with the likelihoods that fit the data's support, and notes on those left out.

    On the study's own data a likelihood that does not fit is an error.
    """
    choice = study.space.parameters.get("likelihood")
    if not isinstance(choice, Choices):
        fixed = {**study.file.training, **study.space.fixed}.get("likelihood", "bernoulli")
        check_support(str(fixed), data.support)
        return study, []
    reasons = {str(name): _misfit(str(name), data.support) for name in choice.choices}
    fitting = [name for name in choice.choices if not reasons[str(name)]]
    misfits = [name for name, reason in reasons.items() if reason]
    if misfits and (own_data or not fitting):
        raise ValueError(reasons[misfits[0]])
    if not misfits:
        return study, []
    space = study.space.replace("likelihood", Choices(choices=fitting))
    return replace(study, space=space), [f"{', '.join(misfits)} left out: {data.name} is {data.support}"]


def _misfit(likelihood: str, support: str) -> str:
    """Why a likelihood does not fit a support; an empty string if it does."""
    try:
        check_support(likelihood, support)
    except ValueError as error:
        return str(error)
    return ""
