r"""Benchmark of the log likelihood against pythae's `get_nll`, as ratios from interleaved rounds on one machine.

Work: the reference network 784-400-400-(20+20) / 20-400-400-784 with a Bernoulli head, k = 5000 samples a point, 20
points, one thread; the same weights on both sides. The points are scikit-learn's handwritten digits, enlarged to 28 x 28
and binarised; the network is trained on them for a few epochs, since we skip idle units of a trained decoder. The ratio for
fresh weights is given too.

| key | ratio |
|---|---|
| vs_pythae | seconds a point, theirs over ours, median over rounds, trained weights |
| vs_pythae_untrained | the same with fresh weights |
| vs_pythae_large_batch | trained weights, against its batch_size = 1000 in place of the default 100 |
| vs_pythae_no_grad | trained weights, against get_nll called under torch.no_grad |
| difference_nats | mean log p(x), ours minus theirs, without our defensive samples: both estimate the same |

Not here: whether the estimates are right, see the tests of `metrics.log_likelihood`.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from autovae.bench.rounds import median_ratio, set_threads
from autovae.data.datasets import Data, load
from autovae.metrics.log_likelihood import VAEModel, log_likelihood
from autovae.model.vae import VAE, build
from autovae.spec import VAESpec
from autovae.training.loop import fit

__all__ = ["bench_nll"]

SAMPLES, POINTS, EPOCHS = 5000, 20, 15
INSTALL = "pip install pythae==0.1.2"


def _digits() -> Data:
    """Handwritten digits as 28 x 28 binary images."""
    small = load("digits")
    x = torch.cat([split.x for split in (small.train, small.validation, small.test)]).float().view(-1, 1, 8, 8)
    large = nn.functional.interpolate(x / x.max(), size=(28, 28), mode="bilinear", align_corners=False)
    return load((large > 0.5).to(torch.uint8).view(-1, 28, 28).numpy())


def _peer(vae: VAE) -> Any:
    """pythae's VAE with the same weights, or None where it is not installed."""
    try:
        from pythae.models import VAE as PeerVAE
        from pythae.models import VAEConfig
        from pythae.models.base.base_utils import ModelOutput
        from pythae.models.nn import BaseDecoder, BaseEncoder
    except ImportError:
        return None

    class Encoder(BaseEncoder):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.net = vae.encoder

        def forward(self, x: Tensor) -> Any:
            loc, log_scale = self.net(x.flatten(1)).chunk(2, -1)
            return ModelOutput(embedding=loc, log_covariance=2 * log_scale)

    class Decoder(BaseDecoder):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Sequential(vae.decoder, nn.Sigmoid())

        def forward(self, z: Tensor) -> Any:
            return ModelOutput(reconstruction=self.net(z).view(-1, 1, 28, 28))

    config = VAEConfig(input_dim=(1, 28, 28), latent_dim=vae.spec.latent_dim, reconstruction_loss="bce")
    return PeerVAE(config, encoder=Encoder(), decoder=Decoder()).eval()


def _seconds(work: Callable[[], object]) -> float:
    """Processor seconds per point: on one thread, the time on a quiet machine."""
    began = time.process_time()
    work()
    return (time.process_time() - began) / POINTS


def bench_nll(rounds: int = 5) -> dict[str, Any]:
    """The ratios of this module's table, times per point, and how to install a missing peer; a flat dictionary."""
    with set_threads(1):
        return _measure(rounds)


def _measure(rounds: int) -> dict[str, Any]:
    data = _digits()
    spec = VAESpec(latent_dim=20, hidden=(400, 400), batch_size=100, epochs=EPOCHS)
    fresh = build(spec, data.domain)
    trained = fit(spec, data).model
    images = data.test.x[:POINTS].float().unsqueeze(1)
    times: dict[str, list[float]] = {}
    runs: dict[str, Callable[[], object]] = {}
    for name, vae in (("trained", trained), ("fresh", fresh)):
        model, peer = VAEModel(vae, data), _peer(vae)
        runs[f"ours {name}"] = partial(log_likelihood, model, SAMPLES, points=POINTS)
        if peer is None:
            continue
        runs[f"pythae {name}"] = partial(peer.get_nll, images, n_samples=SAMPLES)
        if name == "trained":
            runs["pythae large"] = partial(peer.get_nll, images, n_samples=SAMPLES, batch_size=1000)
            runs["pythae no_grad"] = torch.no_grad()(runs["pythae trained"])
    for name, run in runs.items():
        run() if name.startswith("ours") else None  # warm-up, not timed
    for _ in range(rounds):
        for name, run in runs.items():
            times.setdefault(name, []).append(_seconds(run))

    def ratio(peer: str, ours: str) -> float | None:
        return median_ratio(times.get(peer, []), times[ours])

    result: dict[str, Any] = {
        "vs_pythae": ratio("pythae trained", "ours trained"),
        "vs_pythae_untrained": ratio("pythae fresh", "ours fresh"),
        "vs_pythae_large_batch": ratio("pythae large", "ours trained"),
        "vs_pythae_no_grad": ratio("pythae no_grad", "ours trained"),
        "ms_a_point": 1e3 * statistics.median(times["ours trained"]),
        "ms_a_point_untrained": 1e3 * statistics.median(times["ours fresh"]),
        "pythae_ms_a_point": 1e3 * statistics.median(times["pythae trained"]) if "pythae trained" in times else None,
        "samples": SAMPLES,
        "points": POINTS,
        "rounds": rounds,
        "threads": 1,
    }
    if "pythae trained" in runs:
        plain = log_likelihood(VAEModel(trained, data), SAMPLES, defensive=0.0, points=POINTS)
        result["difference_nats"] = plain.mean - float(runs["pythae trained"]())  # type: ignore[arg-type]
    else:
        result["install"] = INSTALL
    return result
