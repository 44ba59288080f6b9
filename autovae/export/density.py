r"""Ex-post density: a flow fitted to where the encoder puts the data, as the source of a prior module.

A trained VAE's aggregate posterior E_data q(z|x) is never quite its prior; decoding from what was fitted to it repairs
samples without touching the decoder. With v = prior.to_normal(z) for encoded z, a coupling flow T is fitted so that
T^-1(v) ~ N(0, I) and put in front of the source (`Transport`): the result is again a prior module with exact densities.

The flow starts at the identity, so the fit can only gain; the gain, in nats per point of held-out latents over N(0, I),
is returned in the card. The prior that the VAE was trained with remains the one to name in comparisons of beliefs.
References: From Variational to Deterministic Autoencoders (Ghosh et al., 2020), ex-post density estimation; Masked
Autoregressive Flow (Papamakarios et al., 2017), coupling layers by zuko.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from autovae.export.prior import PriorModule
from autovae.export.transport import TRANSPORTS, Transport

__all__ = ["Flow", "fit_flow"]


class Flow(Transport):
    """A coupling flow, u = T(xi); both directions cost one pass."""

    def __init__(self, dim: int, transforms: int = 4, hidden: Sequence[int] = (64, 64)) -> None:
        super().__init__()
        try:
            import zuko
        except ImportError:
            raise ImportError("flows need zuko: pip install 'autovae[reasoning]'") from None
        if dim < 2:
            raise ValueError(f"got a flow of {dim} latents; expected at least 2, which it can couple")
        self.dim, self.hidden = dim, tuple(int(width) for width in hidden)
        self.flow = zuko.flows.MAF(dim, 0, transforms=transforms, hidden_features=self.hidden, passes=2)
        self.transforms = transforms
        with torch.no_grad():
            for layer in self.flow.transform.transforms:
                layer.hyper[-1].weight.zero_()  # starts at the exact identity
                layer.hyper[-1].bias.zero_()

    def forward(self, xi: Tensor) -> tuple[Tensor, Tensor]:
        return self.flow().transform.inv.call_and_ladj(xi)

    def inverse(self, u: Tensor) -> tuple[Tensor, Tensor]:
        return self.flow().transform.call_and_ladj(u)

    def config(self) -> dict[str, Any]:
        return {"kind": "flow", "dim": self.dim, "transforms": self.transforms, "hidden": list(self.hidden)}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Flow:
        return cls(int(config["dim"]), int(config["transforms"]), [int(width) for width in config["hidden"]])


TRANSPORTS["flow"] = Flow


def fit_flow(
    prior: PriorModule,
    z: Tensor,
    *,
    transforms: int = 4,
    hidden: Sequence[int] = (64, 64),
    steps: int = 2000,
    batch: int = 512,
    rate: float = 2e-3,
    seed: int = 0,
) -> PriorModule:
    """The prior with a flow fitted to latents z (n, latent_dim), drawn from the encoder at the training data.

    A tenth is held out: the flow kept is the best on it, looked at every 50 steps. `card["source"]` holds
    {"kind": "flow", "gain": nats per held-out point, "points": n}.
    """
    with torch.no_grad():
        v = prior.to_normal(z.to(prior.dtype).to(prior.device)).detach()
    v = v[v.isfinite().all(-1)]
    if len(v) < 20:
        raise ValueError(f"got {len(v)} finite latents; expected at least 20 to fit a density, better thousands")
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(v), generator=generator).to(v.device)
    held, train = v[order[: len(v) // 10]], v[order[len(v) // 10 :]]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # zuko draws its weights from the global stream
        flow = Flow(prior.latent_dim, transforms, hidden).to(v)
    optimizer = torch.optim.Adam(flow.parameters(), lr=rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    best, best_state = _gain(flow, held), copy.deepcopy(flow.state_dict())
    for step in range(1, steps + 1):
        rows = torch.randint(len(train), (min(batch, len(train)),), generator=generator).to(v.device)
        optimizer.zero_grad()
        loss = -_log_ratio(flow, train[rows]).mean()
        loss.backward()
        nn.utils.clip_grad_norm_(flow.parameters(), 10.0)
        optimizer.step()
        schedule.step()
        if step % 50 == 0 or step == steps:
            gain = _gain(flow, held)
            if gain > best:
                best, best_state = gain, copy.deepcopy(flow.state_dict())
    flow.load_state_dict(best_state)
    return prior.transported(flow, source={"kind": "flow", "gain": best, "points": len(v)})


def _log_ratio(flow: Flow, v: Tensor) -> Tensor:
    """log density of v under the flow over that of N(0, I)."""
    xi, log_det = flow.inverse(v)
    return 0.5 * (v.square() - xi.square()).sum(-1) + log_det


def _gain(flow: Flow, v: Tensor) -> float:
    with torch.no_grad():
        return float(_log_ratio(flow, v).mean())
