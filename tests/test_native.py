"""The compiled kernels are the operations that they stand for; products keep float32's accuracy but for one digit.

Without a C compiler there are none, and torch's operations do the work: these tests are skipped, all others stay.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import itertools
import threading
from pathlib import Path

import pytest
import torch

from autovae import fused, native
from autovae.beliefs.likelihoods import LIKELIHOODS
from autovae.data.datasets import load
from autovae.model.networks import mlp
from autovae.model.stacks import LinearStack, prepare
from autovae.native import library
from autovae.native.chains import Chain, Steps
from autovae.spec import VAESpec
from autovae.training.adam import StackedAdam
from autovae.training.feed import Feed
from autovae.training.loop import fit_population
from autovae.training.precision import ERROR_LIMIT

EMULATION = Path(__file__).parent / "emulated_unit.h"
compiled = pytest.mark.skipif(not native.serves(), reason="there is no C compiler here")


def randn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def multiplied(test):  # type: ignore[no-untyped-def]
    """A test of products, run by everything that this processor can multiply by."""
    reason = "this processor has no vectors wide enough, or there is no compiler"
    return pytest.mark.skipif(not native.multiplies(), reason=reason)(pytest.mark.usefixtures("by")(test))


@pytest.fixture(scope="session")
def emulated(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL | None:
    """The library with the matrix unit's instructions in plain C, so that a change made without one breaks nothing unseen."""
    folder, compiler = tmp_path_factory.mktemp("emulated"), library._compiler()
    for threads in (("-fopenmp",), ()):
        choice, made = ("-march=native", *threads, "-include", str(EMULATION)), folder / f"native{len(threads)}.so"
        if compiler is not None and library._compile(compiler, choice, folder, made):
            with contextlib.suppress(OSError):  # threads are wanted that torch does not bring
                return ctypes.CDLL(str(made))
    return None


@pytest.fixture(params=native.MULTIPLIERS[1:])
def by(request: pytest.FixtureRequest, emulated: ctypes.CDLL | None, monkeypatch: pytest.MonkeyPatch):  # type: ignore[no-untyped-def]
    place = native.MULTIPLIERS.index(request.param)
    if native.compiled().products_by(place) != place and emulated is not None:
        own = native._declared(emulated)
        monkeypatch.setattr(native, "_functions", lambda: own)
    try:
        if native.compiled().products_by(place) != place:
            pytest.skip(f"this processor has no {request.param}, nor what its instructions could be made of")
        yield request.param
    finally:
        native.compiled().products_by(len(native.MULTIPLIERS) - 1)


@pytest.fixture(params=[1, 2])
def threads(request: pytest.FixtureRequest):  # type: ignore[no-untyped-def]
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def error(found: torch.Tensor, exact: torch.Tensor) -> float:
    return float((found - exact).norm() / exact.norm().clamp_min(1e-30))


@multiplied
@pytest.mark.parametrize("members", [None, 3])
@pytest.mark.parametrize(
    ("rows", "terms", "columns"), [(100, 784, 400), (64, 65, 66), (33, 7, 130), (1, 1, 1), (5, 300, 3)]
)
def test_products_are_exact_whatever_lies_side_by_side(by, threads, members, rows, terms, columns):
    def factor(height: int, width: int, turned: bool, seed: int) -> torch.Tensor:
        outer = [members] if members else []
        values = randn(*outer, *((width, height) if turned else (height, width)), seed=seed)
        return values.mT if turned else values

    for left in (False, True):
        for right in (False, True):
            a, b = factor(rows, terms, left, 0), factor(terms, columns, right, 1)
            found = error(native.product(a, b), a.double() @ b.double())
            assert found < (ERROR_LIMIT if by == "matrix unit" else ERROR_LIMIT / 10)


@multiplied
@pytest.mark.parametrize("rows", [100, 1000])
def test_threads_do_not_change_a_product(rows):
    """Nor does company: a member alone has all threads, in company one."""
    a, b, found = randn(3, rows, 300), randn(3, 300, 90, seed=1), []
    for count in (1, 2):
        torch.set_num_threads(count)
        found.append(native.product(a, b))
    torch.set_num_threads(1)
    assert torch.equal(*found)
    assert torch.equal(native.product(a[1], b[1]), found[0][1])


@multiplied
def test_products_take_a_factor_that_members_share():
    x, w = randn(100, 80), randn(3, 80, 90)
    out = torch.empty(3, 100, 90)
    assert native.product(x.expand(3, -1, -1), w, out=out) is out
    assert error(out, x.double() @ w.double()) < ERROR_LIMIT


@multiplied
@pytest.mark.parametrize(("rows", "columns"), [(96, 64), (45, 71)])
def test_what_follows_a_product_is_done_in_order(threads, rows, columns):
    a, b, bias, kept = (
        randn(2, rows, 1100),
        randn(2, 1100, columns, seed=1),
        randn(2, 1, columns),
        randn(2, rows, columns),
    )
    plain, sums = a.double() @ b.double(), torch.empty(2, 1, columns)
    assert error(native.product(a, b, bias=bias, rectify=True), (plain + bias).relu()) < ERROR_LIMIT
    masked = native.product(a, b, kept=kept, sums=sums)
    assert error(masked, torch.where(kept > 0, plain, 0.0)) < ERROR_LIMIT
    torch.testing.assert_close(sums, masked.sum(-2, keepdim=True), rtol=1e-5, atol=1e-4)


@multiplied
def test_products_keep_what_is_no_number_in_its_row(by):
    a, b = randn(70, 80), randn(80, 90)
    a[3, 5], a[7, 0] = float("nan"), float("inf")
    found = native.product(a, b, bias=torch.zeros(90), rectify=True)
    assert found[3].isnan().all()
    if by == "matrix unit":  # the low half of what is infinite is no number
        assert found[7].isnan().all()
    else:
        assert torch.equal(found[7].isinf(), (a[7] @ b) > 0)
    assert found[[i for i in range(70) if i not in (3, 7)]].isfinite().all()


@multiplied
@pytest.mark.parametrize(
    ("a", "b", "more", "wrong"),
    [
        (randn(8, 8)[::2, ::2], randn(4, 8), {}, "side by side"),
        (randn(8, 7), randn(6, 8), {}, "shapes"),
        (randn(8, 7), randn(3, 7, 8), {}, "shapes"),
        (randn(8, 0), randn(0, 8), {}, "K > 0"),
        (randn(8, 7).double(), randn(7, 8), {}, "float32"),
        (randn(2, 8, 7), randn(2, 7, 5), {"bias": randn(5)}, "expected 10 of"),
        (randn(2, 8, 7), randn(2, 7, 5), {"kept": randn(8, 5)}, "expected 80 of"),
        (randn(8, 7), randn(7, 5), {"out": torch.empty(8, 6)}, "expected 40 of"),
        (randn(8, 7), randn(7, 5), {"out": torch.empty(5, 8).mT}, "not contiguous"),
    ],
)
def test_what_c_would_read_beyond_is_refused(a, b, more, wrong):
    with pytest.raises(ValueError, match=wrong):
        native.product(a, b, **more)


def layers_of(members: int | None, widths: list[int]) -> list[tuple[torch.Tensor, torch.Tensor]]:
    outer = [members] if members else []
    return [(randn(*outer, i, o, seed=i) / i**0.5, randn(*outer, 1, o, seed=o)) for i, o in itertools.pairwise(widths)]


@multiplied
@pytest.mark.parametrize(("members", "shared"), [(None, True), (3, True), (3, False), (1, False)])
def test_a_chain_is_its_layers(threads, members, shared):
    """Forward and back, whether members share what goes in or not."""
    layers = layers_of(members, [300, 70, 33, 20])
    x = randn(*([members] if members and not shared else []), 45, 300)
    chain = Chain(layers)
    outputs = chain.forward(x)
    exact = [x.double().requires_grad_()]
    sums = []
    for depth, (weight, bias) in enumerate(layers):
        sums.append(exact[-1] @ weight.double() + bias.double())
        sums[-1].retain_grad()
        exact.append(sums[-1].relu() if depth < 2 else sums[-1])
        assert error(outputs[depth], exact[-1].detach()) < ERROR_LIMIT
    gradient = randn(*outputs[-1].shape, seed=5)
    found = [torch.empty_like(bias) for _, bias in layers]
    slopes, to_x = chain.backward(outputs[:-1], gradient, found, to_x=True)
    exact[-1].backward(gradient.double())
    for slope, total, of in zip(slopes, found, sums, strict=True):
        assert error(slope, of.grad) < ERROR_LIMIT
        assert error(total, of.grad.sum(-2, keepdim=True)) < 3 * ERROR_LIMIT
    assert error(to_x.sum(0) if members and shared else to_x, exact[0].grad) < ERROR_LIMIT
    assert chain.backward(outputs[:-1], gradient, found, to_x=False)[1] is None


@multiplied
@pytest.mark.parametrize("members", [None, 2])
def test_a_chain_may_be_one_layer(members):
    ((weight, bias),) = layers = layers_of(members, [40, 30])
    x, gradient, sums = randn(20, 40), randn(*weight.shape[:-2], 20, 30, seed=1), torch.empty_like(bias)
    chain = Chain(layers)
    (output,) = chain.forward(x)
    assert error(output, x.double() @ weight.double() + bias) < ERROR_LIMIT
    (slope,), to_x = chain.backward([], gradient, [sums], to_x=True)
    assert torch.equal(slope, gradient)
    assert error(to_x, gradient.double() @ weight.double().mT) < ERROR_LIMIT
    assert error(sums, gradient.sum(-2, keepdim=True)) < ERROR_LIMIT


@multiplied
def test_neither_threads_nor_company_change_a_chain():
    layers, x, gradient = layers_of(3, [90, 300, 40]), randn(3, 100, 90), randn(3, 100, 40)

    def of(layers, x, gradient, count):  # type: ignore[no-untyped-def]
        torch.set_num_threads(count)
        chain, sums = Chain(layers), [torch.empty_like(bias) for _, bias in layers]
        outputs = chain.forward(x)
        slopes, to_x = chain.backward(outputs[:-1], gradient, sums, to_x=True)
        torch.set_num_threads(1)
        return [*outputs, *slopes, *sums, to_x]

    one, two = (of(layers, x, gradient, count) for count in (1, 2))
    alone = of([(weight[1], bias[1]) for weight, bias in layers], x[1], gradient[1], 2)
    assert all(torch.equal(a, b) and torch.equal(a[1], c) for a, b, c in zip(one, two, alone, strict=True))


@multiplied
def test_a_stack_brings_factors_once_and_gradients_when_it_is_used_twice():
    torch.manual_seed(0)  # other weights may put a unit so near its kink that the last digits decide whether it is on
    members = [mlp([64, 80, 48, 40], "relu") for _ in range(2)]
    stack, plain = LinearStack(members), LinearStack(members)
    prepare(stack, compiled=True)
    stack.sinks.defers = True
    inputs = [randn(50, 64, seed=seed) for seed in (1, 2)]
    for times in (1, 2):
        stack.sinks.written = False
        plain.zero_grad()
        for x in inputs[:times]:
            for one in (stack, plain):
                one(x).square().sum().backward()
        assert set(stack.sinks.factors) == ({0, 1, 2} if times == 1 else set())
        for depth, (a, b) in stack.sinks.factors.items():
            product = a.double().mT @ b.double()
            assert error(product, getattr(plain, f"weight_{depth}").grad) < 2 * ERROR_LIMIT
        names = [name for name, _ in plain.named_parameters() if times == 2 or name.startswith("bias")]
        for name in names:
            assert error(getattr(stack, name).grad, getattr(plain, name).grad) < 2 * ERROR_LIMIT
        stack.sinks.factors.clear()


@multiplied
@pytest.mark.parametrize("terms", [50, 300, 1100])
def test_steps_along_products_are_steps_along_gradients(threads, terms):
    """Also of more terms than are multiplied at once, and with columns left over."""
    shapes = [(3, 90, 70), (3, 1, 70), (3, 64, 33)]
    own, other = ([randn(*shape).requires_grad_() for shape in shapes] for _ in range(2))
    brought: dict[torch.Tensor, tuple[torch.Tensor, torch.Tensor]] = {}
    for p in own:
        p.grad = torch.zeros_like(p)
    along = StackedAdam(own, [1e-2, 3e-3, 1e-3], deferred={p: functools.partial(brought.pop, p, None) for p in own})
    by_torch = StackedAdam(other, [1e-2, 3e-3, 1e-3])
    assert along.takes_factors
    for step in range(12):
        for place, (p, q) in enumerate(zip(own, other, strict=True)):
            a, b = randn(3, terms, p.shape[1], seed=step), randn(3, terms, p.shape[2], seed=100 + step)
            q.grad = (a.double().mT @ b.double()).float()
            if place == 1 or step % 4 == 3:  # brought whole, as after a second pass back
                p.grad.copy_(q.grad)
            else:
                brought[p] = a, b
        along.step()
        by_torch.step()
        assert not brought
    torch.testing.assert_close(own, other, rtol=1e-4, atol=2e-5)
    for name in ("means", "squares"):
        torch.testing.assert_close(getattr(along, name), getattr(by_torch, name), rtol=1e-4, atol=1e-4)


@multiplied
def test_factors_of_another_shape_are_refused():
    p = randn(1, 40, 30)
    steps = Steps([p], [torch.zeros_like(p)], [torch.zeros_like(p)], [torch.zeros_like(p)], torch.ones(1))
    with pytest.raises(ValueError, match="factors"):
        steps.take({0: (randn(1, 9, 40), randn(1, 9, 31))}, (0.1, 0.001), (0.9, 0.999), 1e-8)


@compiled
@pytest.mark.parametrize("gradient", [0.0, 1e-30, 1e25, float("inf"), float("nan")])
def test_steps_at_the_ends_of_the_numbers_are_those_of_torch(gradient):
    """A square root by approximation is not right at 0 and infinity by itself."""
    own, other = (torch.ones(1, 40).requires_grad_() for _ in range(2))
    for p in (own, other):
        p.grad = torch.full_like(p, gradient)
    StackedAdam([own], [1e-3]).step()
    torch._fused_adam_(
        [other.detach()], [other.grad], [torch.zeros(1, 40)], [torch.zeros(1, 40)], [], [torch.ones(())], lr=1e-3,
        beta1=0.9, beta2=0.999, weight_decay=0.0, eps=1e-8, amsgrad=False, maximize=False,
    )  # fmt: skip
    torch.testing.assert_close(own, other, equal_nan=True)


@compiled
def test_results_are_of_the_type_of_what_is_given():
    torch.set_default_dtype(torch.float64)
    try:
        value = LIKELIHOODS["bernoulli"].log_prob_sum(
            torch.full((4, 33), 0.5, dtype=torch.float32), randn(4, 33).float()
        )
    finally:
        torch.set_default_dtype(torch.float32)
    assert value.dtype == torch.float32


@compiled
def test_x_may_be_what_is_differentiated():
    """By torch's operations, for which kernels stand aside."""
    x, eta = torch.full((4, 33), 0.5).requires_grad_(), randn(4, 33)
    LIKELIHOODS["bernoulli"].log_prob_sum(x, eta).sum().backward()
    torch.testing.assert_close(x.grad, eta)


@multiplied
def test_threads_multiply_at_the_same_time():
    """Each with room of its own, of other sizes by turns."""
    found: list[float] = []

    def work(seed: int) -> None:
        torch.set_num_threads(1)
        for size in (200, 90, 333):
            a, b = randn(size, 150, seed=seed), randn(150, size, seed=seed + 1)
            found.append(error(native.product(a, b), a.double() @ b.double()))

    workers = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(found) == 12
    assert max(found) < ERROR_LIMIT


@compiled
@pytest.mark.parametrize("head", ["bernoulli", "continuous_bernoulli"])
@pytest.mark.parametrize("features", [3, 784, 9000])
def test_heads_and_their_slopes(threads, head, features):
    size = torch.logspace(-6, 2, features, dtype=torch.float64).float()
    eta, x = randn(2, 3, 5, features).sign() * size, randn(5, features, seed=1).sigmoid()
    value, slope = native.linear_in_x(x, eta, head)
    exact = eta.double().requires_grad_()
    terms = LIKELIHOODS[head].log_prob(x.double(), exact)
    terms.sum().backward()
    torch.testing.assert_close(value.double(), terms.sum(-1).detach(), rtol=1e-6, atol=1e-4)
    torch.testing.assert_close(slope.double(), exact.grad, rtol=0, atol=1e-6)
    torch.testing.assert_close(native.linear_in_x(x, eta, head, slopes=False)[0], value, rtol=0, atol=0)


@compiled
def test_heads_read_bits_as_numbers_and_refuse_what_they_cannot_read():
    eta, bits = randn(4, 33), randn(4, 33, seed=1) > 0
    value = native.linear_in_x(bits, eta, "bernoulli")[0]
    torch.testing.assert_close(value, native.linear_in_x(bits.float(), eta, "bernoulli")[0], rtol=0, atol=0)
    for wrong in (eta.double(), eta.bfloat16(), eta.mT.contiguous().mT):
        with pytest.raises(ValueError, match="contiguous"):
            native.linear_in_x(bits, wrong, "bernoulli")


@compiled
def test_heads_keep_what_is_no_number():
    eta = randn(4, 33)
    eta[2, 7] = float("nan")
    for head in native.HEADS:
        value, slope = native.linear_in_x(torch.full((4, 33), 0.5), eta, head)
        assert value.isnan().tolist() == [False, False, True, False]
        assert slope.isnan().sum() == 1


@compiled
@pytest.mark.parametrize("features", [5, 70, 400])
def test_a_gradient_passes_where_the_unit_was_awake(threads, features):
    g, h = randn(3, 150, features), randn(3, 150, features, seed=1).relu()
    expected = torch.where(h > 0, g, 0.0)
    sums = native.rectify_back(g, h)
    torch.testing.assert_close(g, expected, rtol=0, atol=0)
    torch.testing.assert_close(sums, expected.sum(-2, keepdim=True), rtol=1e-5, atol=1e-5)


@compiled
def test_levels_are_seen_as_the_middles_of_their_bins():
    levels = load((randn(90, 5, 5).abs() * 60).clamp(0, 255).to(torch.uint8).numpy())
    feed, places = Feed(levels), torch.tensor([3, 0, 17, 3])
    batch = feed.batch(places, ("levels",))
    assert torch.equal(batch.inputs, feed.batch(places, ("levels", "dequantised")).inputs)
    assert batch.targets["levels"] is batch.inputs
    with pytest.raises(IndexError, match="outside"):
        feed.batch(torch.tensor([feed.points]), ("levels",))


@compiled
def test_rows_are_scaled(threads):
    values, factor = randn(2, 3, 50, 700), randn(2, 3, 50, seed=1)
    expected = values * factor.unsqueeze(-1)
    torch.testing.assert_close(native.scale_rows_(values, factor), expected, rtol=0, atol=0)


@compiled
@pytest.mark.parametrize("rates", [(1e-2,) * 3, (1e-2, 3e-3, 1e-3)], ids=["one rate", "rates"])
def test_steps_of_adam_are_those_of_torch(monkeypatch, threads, rates):
    """Also where it goes on from a step; the copies in the products' type are what the weights are."""
    shapes = [(3, 140, 150), (3, 1, 50), (3,)]
    own, other = ([randn(*shape).requires_grad_() for shape in shapes] for _ in range(2))
    apart = torch.zeros(3, 148, 150, dtype=torch.bfloat16)
    copies = [apart[:, :140], own[1].detach().to(torch.bfloat16), None]
    by_kernel = StackedAdam(own, rates, 7, copies)
    monkeypatch.setattr("autovae.training.adam.kernels_for", lambda values: None)
    by_torch = StackedAdam(other, rates, 7)
    for step in range(20):
        for adam, parameters in ((by_kernel, own), (by_torch, other)):
            for place, p in enumerate(parameters):
                p.grad = randn(*p.shape, seed=100 * step + place)
            adam.step()
    torch.testing.assert_close(own, other, rtol=1e-5, atol=1e-6)
    for name in ("means", "squares"):
        torch.testing.assert_close(getattr(by_kernel, name), getattr(by_torch, name), rtol=1e-5, atol=1e-6)
    for copy, p in zip(copies[:2], own, strict=False):
        torch.testing.assert_close(copy, p.detach().to(torch.bfloat16), rtol=0, atol=0)
    assert not bool(apart[:, 140:].any())


@compiled
def test_moments_too_small_to_be_normal_become_zero():
    weight = torch.zeros(1, 64).requires_grad_()
    adam = StackedAdam([weight], [1e-3])
    adam.means[0].fill_(1.2e-38)
    weight.grad = torch.zeros(1, 64)
    adam.step()
    assert not adam.means[0].any()


@compiled
@pytest.mark.parametrize("likelihood", ["bernoulli", "continuous_bernoulli"])
@pytest.mark.parametrize("members", [1, 3])
@pytest.mark.parametrize("products", ["fast", "float32"])
def test_a_training_by_kernels_is_the_training_by_torch(monkeypatch, likelihood, members, products):
    levels = randn(300, 10, 10).mul(3).add(8).clamp(0, 15).to(torch.uint8)
    digits = load(levels.numpy())
    specs = [
        VAESpec(
            hidden=(96, 80),
            latent_dim=5,
            batch_size=100,
            learning_rate=1e-2,
            likelihood=likelihood,
            epochs=2,
            seed=seed,
        )
        for seed in range(members)
    ]
    own = fit_population(specs, digits, products=products)
    for module in ("autovae.model.stacks", "autovae.training.adam"):
        monkeypatch.setattr(f"{module}.kernels_for", lambda values: None)
    theirs = fit_population(specs, digits, products="float32")
    for one, other in zip(own, theirs, strict=True):
        assert [row["loss"] for row in one.history] == pytest.approx([row["loss"] for row in other.history], rel=1e-4)


@compiled
def test_a_graph_that_was_used_is_not_used_again():
    eta = randn(4, 33).requires_grad_()
    value = LIKELIHOODS["bernoulli"].log_prob_sum(torch.full((4, 33), 0.5), eta).sum()
    value.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="differentiated before"):
        value.backward()


@compiled
def test_kernels_serve_numbers_in_memory_alone():
    assert fused.kernels_for(randn(2)) is native
    assert fused.kernels_for(randn(2).double()) is None
    assert fused.kernels_for(randn(2).to("meta")) is None
    seen = []
    torch.func.vmap(lambda values: seen.append(fused.kernels_for(values)) or values)(randn(2, 3))
    assert seen == [None]
