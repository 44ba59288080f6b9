r"""Frechet distance between two sets of features, each modelled as a normal law.

    d^2 = |m_a - m_b|^2 + tr(C_a + C_b - 2 (C_a C_b)^(1/2))

With the features of Inception-v3 it is the FID; with another network, call it the Frechet distance of that network's
features, since values are comparable only under the same network. The estimate falls with the number of samples, so
compare sets of equal size. tr (C_a C_b)^(1/2) is the sum of the square roots of the eigenvalues of
C_a^(1/2) C_b C_a^(1/2), which is symmetric.
References: GANs Trained by a Two Time-Scale Update Rule (Heusel et al., 2017). Not here: which features.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["frechet_distance"]


def frechet_distance(features_a: Tensor, features_b: Tensor) -> float:
    """d^2 of features (N, k) and (M, k). Raises `ValueError` for a set of k points or fewer.

    Its covariance would not have full rank, and the distance would measure the lack of samples.
    """
    for features in (features_a, features_b):
        if features.ndim != 2 or features.shape[1] != features_a.shape[1]:
            raise ValueError(
                f"got features of shapes {tuple(features_a.shape)} and {tuple(features_b.shape)}; expected (N, k), (M, k)"
            )
        if len(features) <= features.shape[1]:
            raise ValueError(
                f"got {len(features)} samples for a Frechet distance of {features.shape[1]} features; expected more "
                "samples than features: draw more, or use fewer features"
            )
        if not bool(features.isfinite().all()):
            raise ValueError("the features have NaN or infinite values; expected finite ones")
    (mean_a, cov_a), (mean_b, cov_b) = (_moments(features.double()) for features in (features_a, features_b))
    values, vectors = torch.linalg.eigh(cov_a)
    root = (vectors * values.clamp(min=0).sqrt()) @ vectors.T
    mixed = torch.linalg.eigvalsh(root @ cov_b @ root).clamp(min=0).sqrt().sum()
    gap = (mean_a - mean_b).square().sum()
    return float((gap + cov_a.trace() + cov_b.trace() - 2 * mixed).clamp(min=0))


def _moments(features: Tensor) -> tuple[Tensor, Tensor]:
    return features.mean(0), torch.cov(features.T).reshape(features.shape[1], features.shape[1])
