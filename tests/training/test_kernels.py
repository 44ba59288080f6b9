"""The fused kernels are the operations that they stand for: on a GPU, or in Triton's interpreter where it is asked for.

TRITON_INTERPRET=1 pytest tests/training/test_kernels.py   runs them on a CPU that has Triton.
"""

import os

import pytest
import torch

from autovae.beliefs.likelihoods import LIKELIHOODS

interpreted = os.environ.get("TRITON_INTERPRET") == "1"
triton = pytest.importorskip("triton", reason="Triton is not installed here; it comes with torch's CUDA builds")
on_device = pytest.mark.skipif(not (interpreted or torch.cuda.is_available()), reason="torch sees no CUDA device here")
gpu = (lambda test: on_device(test)) if interpreted else (lambda test: pytest.mark.gpu(on_device(test)))
DEVICE = "cpu" if interpreted else "cuda"
WIDTHS = [torch.float32, torch.bfloat16]


def randn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(DEVICE)


@gpu
@pytest.mark.parametrize("dtype", WIDTHS)
@pytest.mark.parametrize("rectify", [False, True])
def test_a_bias_is_added_and_rectified(dtype, rectify):
    from autovae.training import kernels

    h, bias = randn(3, 50, 70).to(dtype), randn(3, 1, 70, seed=1).to(dtype)
    expected = h.float() + bias.float()
    expected = (expected.relu() if rectify else expected).to(dtype)
    near = 8e-3 if dtype == torch.bfloat16 else 0  # how the last bit is rounded is the device's
    torch.testing.assert_close(kernels.add_bias_(h, bias, rectify), expected, rtol=near, atol=0)


@gpu
@pytest.mark.parametrize("dtype", WIDTHS)
def test_a_gradient_passes_where_the_unit_was_awake(dtype):
    from autovae.training import kernels

    g, h = randn(3, 150, 70).to(dtype), randn(3, 150, 70, seed=1).relu().to(dtype)
    expected = torch.where(h > 0, g, 0.0)
    sums = kernels.rectify_back(g, h)
    torch.testing.assert_close(g, expected, rtol=0, atol=0)
    torch.testing.assert_close(sums, expected.float().sum(-2, keepdim=True), rtol=1e-5, atol=1e-5)


@gpu
@pytest.mark.parametrize("dtype", WIDTHS)
@pytest.mark.parametrize("head", ["bernoulli", "continuous_bernoulli"])
@pytest.mark.parametrize("features", [3, 784, 9000])
def test_heads_and_their_slopes(dtype, head, features):
    from autovae.training import kernels

    size = torch.logspace(-6, 2, features, dtype=torch.float64).to(DEVICE).float()
    eta = (randn(2, 3, 5, features).sign() * size).to(dtype)
    x = randn(5, features, seed=1).sigmoid()
    value, slope = kernels.linear_in_x(x, eta, head)
    exact = eta.double().requires_grad_()
    terms = LIKELIHOODS[head].log_prob(x.double(), exact)
    terms.sum().backward()
    torch.testing.assert_close(value.double(), terms.sum(-1).detach(), rtol=1e-6, atol=1e-4)
    torch.testing.assert_close(slope.double(), exact.grad, rtol=0, atol=4e-3 if dtype == torch.bfloat16 else 1e-6)


@gpu
@pytest.mark.parametrize("dtype", WIDTHS)
@pytest.mark.parametrize("shape", [(2, 3, 5, 70), (1, 1, 33, 200)])
def test_rows_are_scaled(dtype, shape):
    from autovae.training import kernels

    values, factor = randn(*shape).to(dtype), randn(*shape[:-1], seed=1)
    expected = (values.float() * factor.unsqueeze(-1)).to(dtype)
    near = 8e-3 if dtype == torch.bfloat16 else 0  # how the last bit is rounded is the device's
    torch.testing.assert_close(kernels.scale_rows_(values, factor), expected, rtol=near, atol=0)


def stacks_of(count, widths=(50, 40, 30), activations=("relu",)):
    """A LinearStack of `count` members on the device, each with one of the activations."""
    from autovae.model.networks import mlp
    from autovae.model.stacked import LinearStack

    torch.manual_seed(0)
    members = [mlp(list(widths), activations[place % len(activations)]) for place in range(count)]
    return LinearStack(members, DEVICE)


@gpu
@pytest.mark.parametrize("rates", [(1e-2,) * 3, (1e-2, 3e-3, 1e-3)], ids=["one rate", "rates"])
@pytest.mark.parametrize("latents", [40, 45])
def test_steps_of_adam_are_those_of_torch(rates, latents):
    """Also where it goes on from a step; the copies in the products' type are what the weights are, filled up by zeros."""
    from autovae.training.adam import StackedAdam
    from autovae.training.cuda import FusedAdam, FusedOperations

    own, other = (stacks_of(3, (latents, 50)) for _ in range(2))
    operations = FusedOperations(torch.bfloat16)
    operations.own([own])
    pairs = list(zip(own.parameters(), other.parameters(), strict=True))
    adams = FusedAdam(list(own.parameters()), rates, 7, operations), StackedAdam(list(other.parameters()), rates, 7)
    for step in range(20):
        for place, (p, q) in enumerate(pairs):
            p.grad.copy_(g := randn(*p.shape, seed=100 * step + place))
            q.grad = g
        for adam in adams:
            adam.step()
    for p, q in pairs:
        torch.testing.assert_close(p, q, rtol=1e-5, atol=1e-6)
    for name in ("means", "squares"):
        torch.testing.assert_close(getattr(adams[0], name), getattr(adams[1], name), rtol=1e-5, atol=1e-6)
    (buffers,) = operations.buffers.values()
    for copy, p in zip(buffers.copies.values(), own.parameters(), strict=True):
        torch.testing.assert_close(copy.float(), p.detach(), rtol=8e-3, atol=0)
    held = buffers.layers[0][0]
    assert held.shape[-2] % 8 == 0
    assert not bool(held[:, latents:].any())


@gpu
@pytest.mark.parametrize("activations", [("relu",), ("tanh",), ("relu", "tanh")])
@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("shared", [True, False])
def test_a_chain_by_kernels_is_the_chain_by_torch(activations, count, shared):
    """Outputs and gradients; a second backward pass of one step adds to the first."""
    from autovae.training.cuda import FusedOperations

    own, reference = (stacks_of(count, activations=activations) for _ in range(2))
    own.operations = FusedOperations()
    own.operations.own([own])
    shape = (16, 50) if shared else (count, 16, 50)
    for passes in range(2):
        x, y = (randn(*shape, seed=passes).requires_grad_() for _ in range(2))
        found, expected = own(x), reference(y)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
        found.square().sum().backward()
        expected.square().sum().backward()
        torch.testing.assert_close(x.grad, y.grad, rtol=1e-4, atol=1e-4)
        for p, q in zip(own.parameters(), reference.parameters(), strict=True):
            torch.testing.assert_close(p.grad, q.grad, rtol=1e-4, atol=1e-3)


def rows_of_steps(spec, members, dtype, backend):
    """The means over ten steps on 20 pixels of random levels."""
    from autovae.data.datasets import load
    from autovae.data.minibatches import Minibatches
    from autovae.model.vae import build
    from autovae.training.train_state import TrainState
    from autovae.training.trainer import Trainer

    data = load(torch.randint(0, 16, (120, 4, 5), generator=torch.Generator().manual_seed(0)).to(torch.uint8).numpy())
    points = Minibatches(data, device=DEVICE, dtype=dtype)
    group = [TrainState(build(spec.replace(seed=seed), data.domain).to(dtype)) for seed in range(members)]
    trainer = Trainer(group, points, backend)
    xi = randn(members, 1, 40, spec.latent_dim, seed=3).to(dtype)
    for _ in range(10):
        noise = points.dequantiser().manual_seed(1)
        trainer.advance(points.batch(slice(0, 40), trainer.kinds, trainer.edges, noise), xi)
    return trainer.finish_epoch()


def spec_of(likelihood, **settings):
    from autovae.spec import VAESpec

    base = VAESpec(latent_dim=5, hidden=(16, 12), batch_size=40, learning_rate=1e-2, objective="density")
    return base.replace(likelihood=likelihood, **settings)


@gpu
@pytest.mark.parametrize("likelihood", ["bernoulli", "continuous_bernoulli", "normal"])
@pytest.mark.parametrize(
    "settings", [{}, {"learned_prior": "vampprior", "components": 4}, {"saturate": True}, {"objective": "mass"}]
)
@pytest.mark.parametrize("members", [1, 3])
def test_a_step_by_kernels_is_the_step_by_torch(likelihood, settings, members):
    """Losses over some steps; one member is another shape of product. In double precision there are no kernels."""
    from autovae.training.cuda import CUDABackend

    spec = spec_of(likelihood, **settings)
    rows = {dtype: rows_of_steps(spec, members, dtype, CUDABackend()) for dtype in (torch.float32, torch.float64)}
    for by_kernel, by_torch in zip(rows[torch.float32], rows[torch.float64], strict=True):
        assert by_kernel["loss"] == pytest.approx(by_torch["loss"], rel=1e-4)


@gpu
@pytest.mark.parametrize("likelihood", ["bernoulli", "normal"])
@pytest.mark.parametrize("members", [1, 3])
def test_products_of_a_narrow_type(likelihood, members):
    from autovae.training.backend import CPUBackend
    from autovae.training.cuda import CUDABackend

    spec = spec_of(likelihood)
    found = rows_of_steps(spec, members, torch.float32, CUDABackend(torch.bfloat16))
    for by_kernel, by_torch in zip(found, rows_of_steps(spec, members, torch.float32, CPUBackend()), strict=True):
        assert by_kernel["loss"] == pytest.approx(by_torch["loss"], rel=5e-3)


@pytest.mark.skipif(interpreted, reason="the interpreter compiles nothing")
@pytest.mark.parametrize("width", ["fp32", "bf16"])
@pytest.mark.parametrize("name", ["_adam", "_add_bias", "_linear_in_x", "_rectify_back", "_scale_rows"])
def test_kernels_compile_without_a_device(name, width):
    """For a chip of compute capability 9.0: what the interpreter lets pass and the compiler does not."""
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from autovae.training import kernels

    arguments = {
        "_add_bias": ("h bias", "rows features", {"RECTIFY": True, "ROWS": 16, "COLUMNS": 128}),
        "_rectify_back": ("g h", "rows features", {"ROWS": 64, "COLUMNS": 64}),
        "_linear_in_x": ("eta slope", "rows points features", {"HEAD": 0, "STACKED": 8, "FEATURES": 64, "FACTORS": 64}),
        "_scale_rows": ("values", "rows features", {"ROWS": 16, "COLUMNS": 128}),
        "_adam": (
            "narrow",
            "size apart",
            {"BETA1": 0.9, "BETA2": 0.999, "EPSILON": 1e-8, "NARROW": True, "BLOCK": 1024},
        ),
    }
    tensors, numbers, constants = arguments[name]
    kernel = getattr(kernels, name)
    types = dict.fromkeys(tensors.split(), f"*{width}") | dict.fromkeys(numbers.split(), "i32")
    types |= dict.fromkeys(constants, "constexpr")
    signature = {argument: types.get(argument, "*fp32") for argument in kernel.arg_names}
    compiled = triton.compile(ASTSource(kernel, signature, constants), target=GPUTarget("cuda", 90, 32))
    assert compiled.asm["cubin"]
