r"""Gradients of the evidence, fast: plain networks are differentiated by hand, anything else by autograd.

Inference spends its time in one function, xi -> grad log p(evidence | x(xi)). With a handful of chains the products are
small and half of autograd's time is bookkeeping, so where the decoder is a sequence of Linear layers and known
activations (every decoder of NETWORKS) its two passes are written out:

    forward   h_l = a_l(W_l h_{l-1} + b_l)          backward   g_{l-1} = W_l^T (g_l * a_l'(h_l))

with the weights kept in both layouts, so that each product reads its operand row by row. Between the two passes stands
the cotangent dlog p/d(output): closed for measurements of x itself (`Gaussian`, `Masked`) behind an identity or a
sigmoid mean, by autograd over the few operations of the likelihood's mean and the constraints otherwise. The families
of the prior enter by the slope of their elementwise map.

`likelihood_gradient(posterior)` chooses; the result is called as gradient(xi, need_value) -> (value or None, gradient)
with xi (batch, dim) and holds for the weights at that moment. The tests compare both ways to rounding.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from autovae.beliefs.likelihoods import LIKELIHOODS
from autovae.export.prior import PriorModule
from autovae.reasoning.constraints import Gaussian, Scene
from autovae.reasoning.posterior import LatentPosterior

__all__ = ["Gradient", "likelihood_gradient"]

Gradient = Callable[[Tensor, bool], tuple[Tensor | None, Tensor]]
aten = torch.ops.aten


@dataclass(frozen=True)
class Activation:
    """An elementwise layer: its value, and its gradient from (grad, input, output).

    One that finds its gradient from the output alone says so and is then computed in place, `forward(h)` changing h.
    """

    forward: Callable[[Tensor], Tensor]
    backward: Callable[[Tensor, Tensor, Tensor], Tensor]
    in_place: bool = False


def _activation(layer: nn.Module) -> Activation | None:
    """The hand-written passes of an activation, None where there are none."""
    kind = type(layer)
    if kind is nn.ReLU:
        threshold = aten.threshold_backward.grad_input
        return Activation(torch.relu_, lambda g, x, y: threshold(g, y, 0, grad_input=g), in_place=True)
    if kind is nn.Tanh:
        tanh = aten.tanh_backward.grad_input
        return Activation(torch.tanh_, lambda g, x, y: tanh(g, y, grad_input=g), in_place=True)
    if kind is nn.Sigmoid:
        sigmoid = aten.sigmoid_backward.grad_input
        return Activation(torch.sigmoid_, lambda g, x, y: sigmoid(g, y, grad_input=g), in_place=True)
    if isinstance(layer, nn.LeakyReLU) and kind is nn.LeakyReLU:
        slope = layer.negative_slope
        return Activation(_plain(layer), lambda g, x, y: aten.leaky_relu_backward(g, x, slope, False))
    if isinstance(layer, nn.ELU) and kind is nn.ELU:
        alpha = layer.alpha
        return Activation(_plain(layer), lambda g, x, y: aten.elu_backward(g, alpha, 1.0, 1.0, False, x))
    if kind is nn.SiLU:
        return Activation(nn.functional.silu, lambda g, x, y: aten.silu_backward(g, x))
    if isinstance(layer, nn.GELU) and kind is nn.GELU:
        form = layer.approximate
        return Activation(layer.forward, lambda g, x, y: aten.gelu_backward(g, x, approximate=form))
    return None


def _plain(layer: nn.LeakyReLU | nn.ELU) -> Callable[[Tensor], Tensor]:
    """The layer's function without its `inplace`, which would overwrite the input that `backward` asks for."""
    if isinstance(layer, nn.ELU):
        return lambda x: nn.functional.elu(x, layer.alpha)
    return lambda x: nn.functional.leaky_relu(x, layer.negative_slope)


class Product:
    """a -> a m (+ b) for one matrix (inputs, outputs), by the fastest way for each batch size.

    Results are kept from call to call and overwritten, since fresh pages cost as much as a small product; what a call
    returns is its caller's until the next call. Where several threads share a large product, MKL's matrix packed
    beforehand takes a tenth less than one that is packed anew in every call, and adds the bias on the way.
    """

    def __init__(self, matrix: Tensor, transposed: Tensor, bias: Tensor | None) -> None:
        self.matrix, self.transposed, self.bias = matrix, transposed, bias
        self._ways: dict[int, Callable[[Tensor], Tensor]] = {}

    def __call__(self, a: Tensor) -> Tensor:
        way = self._ways.get(a.shape[0])
        if way is None:
            way = self._ways[a.shape[0]] = self._packed(a) if self._worth_packing(a) else self._plain(a)
        return way(a)

    def _worth_packing(self, a: Tensor) -> bool:
        large = a.shape[0] >= PACKED_BATCH and self.matrix.numel() >= PACKED_NUMBERS and torch.get_num_threads() > 1
        return large and _mkl_packs() and a.device.type == "cpu" and a.dtype == self.matrix.dtype == torch.float32

    def _plain(self, a: Tensor) -> Callable[[Tensor], Tensor]:
        matrix, bias, result = self.matrix, self.bias, a.new_empty(a.shape[0], self.matrix.shape[1])
        if bias is None:
            return lambda a: torch.mm(a, matrix, out=result)
        return lambda a: torch.mm(a, matrix, out=result).add_(bias)

    def _packed(self, a: Tensor) -> Callable[[Tensor], Tensor]:
        batch, weight, bias = a.shape[0], self.transposed, self.bias
        packed = torch.ops.mkl._mkl_reorder_linear_weight(weight, batch)
        return lambda a: torch.ops.mkl._mkl_linear(a, packed, weight, bias, batch)


PACKED_BATCH, PACKED_NUMBERS = 48, 100_000  # from here on packing gains, measured on two threads


@functools.cache
def _mkl_packs() -> bool:
    """Whether this torch has the packed products that its compiler uses."""
    return torch.backends.mkl.is_available() and hasattr(torch.ops.mkl, "_mkl_linear")


class PlainNetwork:
    """A sequence of Linear layers and activations with both passes written out.

    What `forward` and `backward` return is their caller's until the next call of the same.
    """

    def __init__(self, layers: list[nn.Linear | Activation]) -> None:
        self.layers = [layer if isinstance(layer, Activation) else _both_ways(layer) for layer in layers]

    @classmethod
    def of(cls, module: nn.Module) -> PlainNetwork | None:
        """The network of `module`, or None where it holds a layer that is not known here."""
        layers = _flatten(module)
        return None if layers is None else cls(layers)

    def forward(self, h: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The output, and the activations' inputs and outputs for `backward`."""
        kept: list[Tensor] = []
        owned = False
        for layer in self.layers:
            if isinstance(layer, Activation):
                y = layer.forward(h if owned or not layer.in_place else h.clone())
                kept += (h, y)
                h = y
            else:
                h = layer[0](h)
            owned = True
        return h, kept

    def backward(self, g: Tensor, kept: list[Tensor]) -> Tensor:
        """The gradient of the input from that of the output, which is overwritten."""
        left = len(kept)
        for layer in reversed(self.layers):
            if isinstance(layer, Activation):
                left -= 2
                g = layer.backward(g, kept[left], kept[left + 1])
            else:
                g = layer[1](g)
        return g


def _both_ways(layer: nn.Linear) -> tuple[Product, Product]:
    """The products of the forward and the backward pass, each with its matrix row by row."""
    weight = layer.weight.detach()
    transposed = weight.T.contiguous()
    bias = None if layer.bias is None else layer.bias.detach()
    return Product(transposed, weight, bias), Product(weight, transposed, None)


def _flatten(module: nn.Module) -> list[nn.Linear | Activation] | None:
    """The layers of nested Sequentials in order; None where one is unknown or carries hooks."""
    if module._forward_hooks or module._forward_pre_hooks or module._backward_hooks:
        return None
    if type(module) is nn.Linear:
        return [module]
    if type(module) in (nn.Identity, nn.Dropout):  # dropout is idle in eval mode, where priors stay
        return []
    if type(module) is nn.Sequential:
        parts = [_flatten(child) for child in module]
        return None if any(part is None for part in parts) else [layer for part in parts for layer in part or []]
    activation = _activation(module)
    return None if activation is None else [activation]


def likelihood_gradient(posterior: LatentPosterior) -> Gradient:
    """The fastest way to this posterior's gradient that is exact, for xi (batch, dim)."""
    prior = posterior.prior
    network = PlainNetwork.of(prior.decoder) if prior.transport is None else None
    if network is None or not posterior.constraints or not _takes_flat(prior, network):
        return lambda xi, need_value: posterior.likelihood_and_gradient(xi)
    cotangent = _measured(posterior) or _by_autograd(posterior)
    size, objects = len(prior.object_families), prior.objects
    plain = set(prior.object_families) == {"normal"}
    # A closed form may overwrite the output, which an activation at the end still needs.
    shared = isinstance(network.layers[-1], Activation) if network.layers else True

    def gradient(xi: Tensor, need_value: bool) -> tuple[Tensor | None, Tensor]:
        if torch.is_grad_enabled():  # asked, since entering no_grad costs as much as a small product
            with torch.no_grad():
                return gradient(xi, need_value)
        z, slope = (xi, None) if plain else _latent_and_slope(prior, xi)
        params, kept = network.forward(z if objects == 1 else z.reshape(-1, size))
        if shared:
            params = params.clone()
        value, g = cotangent(params, xi.shape[0], need_value)
        g = network.backward(g, kept)
        if objects > 1:
            g = g.reshape(xi.shape)
        return value, g.clone() if slope is None else g * slope

    return gradient


def _takes_flat(prior: PriorModule, network: PlainNetwork) -> bool:
    first = next((layer for layer in network.layers if not isinstance(layer, Activation)), None)
    return first is None or first[0].matrix.shape[0] == len(prior.object_families)


def _latent_and_slope(prior: PriorModule, xi: Tensor) -> tuple[Tensor, Tensor]:
    """z and dz/dxi = phi(xi) / f(z), elementwise: equal probabilities on both sides give the slope for nothing."""
    z = prior.from_normal(xi)
    log_slope = -0.5 * xi.square() - 0.5 * math.log(2 * math.pi) - prior.log_densities(z)
    return z, log_slope.exp_()


Cotangent = Callable[[Tensor, int, bool], tuple[Tensor | None, Tensor]]


def _by_autograd(posterior: LatentPosterior) -> Cotangent:
    """dlog p/d(output of the decoder) by differentiating the likelihood's mean and the constraints."""
    prior = posterior.prior

    def cotangent(params: Tensor, batch: int, need_value: bool) -> tuple[Tensor | None, Tensor]:
        with torch.enable_grad():
            leaf = params.detach().requires_grad_()
            value = posterior.log_likelihood_of(Scene(prior.data_of(leaf, (batch,)), prior.objects), batch)
            (g,) = torch.autograd.grad(value.sum(), leaf)
        return value.detach(), g

    return cotangent


def _measured(posterior: LatentPosterior) -> Cotangent | None:
    """For measurements of x itself the closed form, g = dx/d(output) * precision * (y - x); None for other evidence."""
    prior = posterior.prior
    link = _link(prior)
    if link is None or prior.objects > 1 or prior.scale_per_pixel:
        return None
    pieces = []
    for constraint in posterior.constraints:
        known = constraint.precision() if isinstance(constraint, Gaussian) else None
        if known is None:
            return None
        pieces.append((posterior.power * constraint.power, known))
    like = prior.offset
    unit, offset = (_flat(value, prior) for value in (prior.unit, prior.offset))
    moved = not bool((prior.offset == 0).all() and (prior.unit == 1).all())
    weights = torch.stack([power * precision.to(like) for power, (_, precision, _) in pieces])
    targets = torch.stack([y.to(like) for _, (y, _, _) in pieces])
    # Several measurements of one pixel are one of the summed precision, and a constant.
    weight = weights.sum(0)
    target = torch.where(weight > 0, (weights * targets).sum(0) / weight.clamp(min=torch.finfo(like.dtype).tiny), 0.0)
    spread = 0.5 * (weights * (targets - target).square()).sum()
    constant = float(sum(power * log_norm for power, (_, _, log_norm) in pieces) - spread)

    def cotangent(params: Tensor, batch: int, need_value: bool) -> tuple[Tensor | None, Tensor]:
        mean = params if link == "identity" else params.sigmoid_()
        residual = torch.sub(target, mean * unit + offset if moved else mean)
        weighted = residual * weight if need_value else residual.mul_(weight)
        value = (weighted * residual).sum(-1).mul_(-0.5).add_(constant) if need_value else None
        if moved:
            weighted *= unit
        if link == "sigmoid":
            aten.sigmoid_backward.grad_input(weighted, mean, grad_input=weighted)
        return value, weighted

    return cotangent


def _flat(value: Tensor, prior: PriorModule) -> Tensor:
    """A number per feature of x, flat like the decoder's output."""
    return value if value.ndim == 0 or prior.shape is None else value.expand(prior.shape).reshape(-1)


def _link(prior: PriorModule) -> str | None:
    """What the mean is of the decoder's output, "identity" or "sigmoid", else None.

    Asked of the likelihood itself on a grid, so that a likelihood added later is recognised or left to autograd.
    """
    if prior.likelihood is None:
        return "identity"
    grid = torch.linspace(-20, 20, 81, dtype=prior.dtype, device=prior.device)
    scale = None if prior.scale is None else prior.scale.flatten()[0]
    mean = LIKELIHOODS[prior.likelihood].mean(grid, scale)
    if torch.equal(mean, grid):
        return "identity"
    return "sigmoid" if torch.equal(mean, grid.sigmoid()) else None
