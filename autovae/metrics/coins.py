r"""log p(x|z) of one binary point for many z, from what the decoder's last layer multiplies.

With s = 2 x - 1 in {-1, +1}, hidden units h (K, H) and the last layer W (H, X), b (X,), a Bernoulli head gives

    log p(x|z_k) = - sum_j log(1 + exp u_kj),        u = -s (h W + b)

The signs are put into W, which is small beside h, the bias into a factor exp(-s b), and one logarithm serves FACTORS
features: three passes over (K, X) are left where logits, their absolute values, sigmoids and products with x took
seven. All factors are at least 1, so nothing cancels; where a product overflows the row is done again feature by feature.
Not here: several points at once, other heads, gradients, see `beliefs.likelihoods`.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["BIAS_LIMIT", "binary_log_prob"]

FACTORS = 8
BIAS_LIMIT = 30.0  # with a larger bias exp(u) may vanish where exp(u - s b) does not


@torch.no_grad()
def binary_log_prob(h: Tensor, weight: Tensor, bias: Tensor, x: Tensor) -> Tensor:
    """sum_j log p(x_j | h_k), (K,), of one point x (X,) of zeros and ones; |bias| <= BIAS_LIMIT.

    Errors of float32: about 1e-6 sqrt(X) beside those of the product itself.
    """
    sign = 1 - 2 * x
    signed = weight * sign
    factor = torch.mm(h, signed).exp_()
    factor = torch.addcmul(factor.new_ones(()), factor, (sign * bias).exp())
    whole = len(x) // FACTORS * FACTORS
    value = factor[:, whole:].log().sum(-1)
    value += factor[:, :whole].unflatten(-1, (FACTORS, -1)).prod(-2).log_().sum(-1) if whole else 0.0
    lost = ~value.isfinite()
    if bool(lost.any()):
        value[lost] = F.softplus(torch.addmm(sign * bias, h[lost], signed)).sum(-1)
    return value.neg_()
