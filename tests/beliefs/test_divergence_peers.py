"""The divergence table beside its peers: samples, torch.distributions, and torch.compile."""

import pytest
import torch
from torch import distributions as peers

from autovae.beliefs.divergences import kl, kl_unchecked
from autovae.beliefs.families import FAMILIES
from autovae.finiteness import TAILS, finiteness

CORE = ("normal", "laplace", "cauchy", "logistic", "gumbel", "uniform", "exponential")
FINITE = [(q, p) for q in TAILS for p in TAILS if finiteness(q, p) != "infinite"]
# Where E U_p^2 diverges the mean of samples has no standard error to compare with.
SAMPLED = [
    (q, p) for q, p in FINITE if TAILS[q].power > 2 * max(side.growth for side in (TAILS[p].left, TAILS[p].right))
    or TAILS[q].power == float("inf")
]  # fmt: skip


def inside(posterior, prior):
    """A location and scale at which the pair is finite, with room to spare where the variance needs it."""
    loc, scale = (0.6, 0.3) if finiteness(posterior, prior) == "conditional" else (0.7, 0.8)
    return torch.tensor(loc, dtype=torch.float64), torch.tensor(scale, dtype=torch.float64)


@pytest.mark.parametrize("pair", SAMPLED, ids="|".join)
def test_samples_agree(pair):
    posterior, prior = pair
    loc, scale = inside(posterior, prior)
    generator = torch.Generator().manual_seed(0)
    eps = FAMILIES[posterior].sample((200_000,), generator=generator, dtype=torch.float64)
    ratio = FAMILIES[posterior].log_prob(eps) - scale.log() - FAMILIES[prior].log_prob(loc + scale * eps)
    error = ratio.std() / len(ratio) ** 0.5
    assert abs(float(ratio.mean() - kl(posterior, prior, loc, scale))) < 5 * float(error) + 1e-12


PEERS = {
    "normal": peers.Normal,
    "laplace": peers.Laplace,
    "cauchy": peers.Cauchy,
    "gumbel": peers.Gumbel,
    "uniform": lambda loc, scale: peers.Uniform(loc - scale, loc + scale),
    "exponential": lambda loc, scale: peers.Exponential(1 / scale),
}


def test_torch_has_fifteen_of_the_thirty_four_finite_cells_and_agrees_on_them():
    """The count that the README states, measured."""
    core = [(q, p) for q in CORE for p in CORE if finiteness(q, p) != "infinite"]
    covered = []
    for posterior, prior in core:
        if posterior not in PEERS or prior not in PEERS:
            continue
        # torch's exponential starts at 0: it is ours at location 0
        loc = torch.tensor(0.0 if "exponential" in (posterior,) else 0.4, dtype=torch.float64)
        scale = torch.tensor(0.3, dtype=torch.float64)
        zero, one = torch.zeros((), dtype=torch.float64), torch.ones((), dtype=torch.float64)
        try:
            theirs = peers.kl_divergence(PEERS[posterior](loc, scale), PEERS[prior](zero, one))
        except NotImplementedError:
            continue
        covered.append((posterior, prior))
        torch.testing.assert_close(theirs, kl(posterior, prior, loc, scale), rtol=1e-9, atol=1e-9)
    assert len(core) == 34
    assert len(covered) == 15


@pytest.mark.slow
@pytest.mark.parametrize("pair", [(q, p) for q, p in FINITE if q in CORE and p in CORE], ids="|".join)
def test_a_cell_is_one_graph_without_breaks(pair):
    """No data-dependent branch and no host synchronisation: traced whole, forward and backward."""
    torch._dynamo.reset()
    loc, scale = (t.repeat(3, 2).requires_grad_() for t in inside(*pair))
    whole = torch.compile(lambda loc, scale: kl_unchecked(*pair, loc, scale), backend="aot_eager", fullgraph=True)
    expected = torch.autograd.grad(kl_unchecked(*pair, loc, scale).sum(), (loc, scale))
    found = torch.autograd.grad(whole(loc, scale).sum(), (loc, scale))
    for one, other in zip(expected, found, strict=True):
        torch.testing.assert_close(one, other)
