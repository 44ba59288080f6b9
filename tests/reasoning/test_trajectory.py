"""Trajectories: integrators are reversible and preserve volume; steps on fixed tensors, and on CUDA as a graph, are the same."""

import pytest
import torch
from torch import nn

from autovae.beliefs.families import FAMILIES
from autovae.export.prior import PriorModule, expand_families
from autovae.reasoning import HMC, Categorical, Criterion, Gaussian, LatentPosterior, Masked
from autovae.reasoning.gradient import likelihood_gradient
from autovae.reasoning.hmc import _Run
from autovae.reasoning.trajectory import INTEGRATORS, Fixed, Trajectory


def with_gpu(test):
    missing = not torch.cuda.is_available()
    return pytest.mark.gpu(pytest.mark.skipif(missing, reason="torch sees no CUDA device here")(test))


def bent_question():
    torch.manual_seed(0)
    decoder = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 5)).double()
    return LatentPosterior(PriorModule.from_decoder(decoder), Gaussian(None, torch.zeros(5).double(), 0.3))


@pytest.mark.parametrize("name", INTEGRATORS)
@pytest.mark.parametrize("scaled", [False, True])
def test_integrators_are_reversible(name, scaled):
    integrator = INTEGRATORS[name]
    inverse_mass = torch.tensor([0.5, 1.0, 2.0]).double() if scaled and not integrator.unit_mass else None
    way = Trajectory(integrator, likelihood_gradient(bent_question()))
    state = way.at(torch.randn(6, 3).double())
    momentum, step = torch.randn(6, 3).double(), torch.full((6, 1), 0.05).double()
    end, final = way.follow(state, momentum, step, inverse_mass, 7)
    back, returned = way.follow(end, -final, step, inverse_mass, 7)
    torch.testing.assert_close(back.xi, state.xi)
    torch.testing.assert_close(returned, -momentum)
    torch.testing.assert_close(back.log_prob, state.log_prob)


@pytest.mark.parametrize("name", INTEGRATORS)
def test_integrators_preserve_volume_and_nearly_energy(name):
    way = Trajectory(INTEGRATORS[name], likelihood_gradient(bent_question()))

    def flow(both, size=0.05, steps=3):
        xi, momentum = both[None, :3], both[None, 3:]
        end, final = way.follow(way.at(xi), momentum, torch.full((1, 1), size).double(), None, steps)
        return torch.cat([end.xi[0], final[0]])

    both = torch.randn(6).double()
    tiny = 1e-6
    columns = [(flow(both + tiny * e) - flow(both - tiny * e)) / (2 * tiny) for e in torch.eye(6).double()]
    assert float(torch.linalg.det(torch.stack(columns, 1))) == pytest.approx(1.0, abs=1e-6)

    def energy(both):
        return float(0.5 * both[3:].square().sum() - bent_question().log_prob(both[:3]))

    errors = [abs(energy(flow(both, size, steps)) - energy(both)) for size, steps in ((0.02, 10), (0.01, 20))]
    assert errors[1] < 0.35 * errors[0]  # second order: a quarter


def in_place(work):
    """Records nothing: does the same work again."""
    return work


@pytest.mark.parametrize("name", INTEGRATORS)
@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("steps", [1, 4])
def test_steps_on_fixed_tensors_are_the_plain_steps(name, scaled, steps):
    integrator = INTEGRATORS[name]
    inverse_mass = torch.tensor([0.5, 1.0, 2.0]).double() if scaled and not integrator.unit_mass else None
    plain = Trajectory(integrator, likelihood_gradient(bent_question()))
    fixed = Fixed(integrator, plain.gradient, plain.at(torch.randn(6, 3).double()), in_place)
    step = 0.1 + 0.1 * torch.rand(6, 1).double()
    for _ in range(2):  # the second finds what the first left
        state, momentum = plain.at(torch.randn(6, 3).double()), torch.randn(6, 3).double()
        (end, final), (other, last) = (way.follow(state, momentum, step, inverse_mass, steps) for way in (plain, fixed))
        assert torch.equal(end.xi, other.xi)
        assert torch.equal(end.gradient, other.gradient)
        assert torch.equal(end.log_prob, other.log_prob)
        assert torch.equal(final, last)


def test_what_fixed_tensors_gave_is_not_overwritten():
    plain = Trajectory(INTEGRATORS["leapfrog"], likelihood_gradient(bent_question()))
    state, step = plain.at(torch.randn(6, 3).double()), torch.full((6, 1), 0.1).double()
    fixed = Fixed(plain.integrator, plain.gradient, state, in_place)
    end, final = fixed.follow(state, torch.randn(6, 3).double(), step, None, 2)
    kept = [tensor.clone() for tensor in (end.xi, end.gradient, end.log_prob, final)]
    fixed.follow(end, -final, step, None, 5)
    for tensor, before in zip((end.xi, end.gradient, end.log_prob, final), kept, strict=True):
        assert torch.equal(tensor, before)


@pytest.mark.parametrize("trajectory", ["chees", "fixed"])
def test_a_run_on_fixed_tensors_gives_the_plain_draws(trajectory, monkeypatch):
    posterior = bent_question()
    settings = HMC(chains=4, trajectory=trajectory)
    plain = settings.run(posterior, 20, warmup=120)

    def record(run):
        run.trajectory = Fixed(run.integrator, run.trajectory.gradient, run.state, in_place)
        return "in place"

    monkeypatch.setattr(_Run, "_record", record)
    fixed = settings.run(posterior, 20, warmup=120)
    assert (plain.info["graph"], fixed.info["graph"]) == ("the chains are on cpu", "in place")
    assert torch.equal(plain.xi, fixed.xi)
    assert torch.equal(plain.log_prob, fixed.log_prob)


def test_a_step_that_is_another_every_time_is_not_recorded():
    noisy = Criterion(lambda x: (x * torch.randn_like(x)).sum(-1))
    posterior = LatentPosterior(bent_question().prior, noisy)
    way = Trajectory(INTEGRATORS["leapfrog"], likelihood_gradient(posterior))
    with pytest.raises(RuntimeError, match="differs from the eager one"):
        Fixed(way.integrator, way.gradient, way.at(torch.randn(6, 3).double()), in_place)


def test_a_graph_without_a_gpu_is_flagged_where_it_was_asked_for():
    posterior = bent_question()
    left, asked, without = (HMC(chains=2, graph=graph).run(posterior, 3, warmup=5) for graph in (None, True, False))
    assert "no CUDA graph of a step: the chains are on cpu" in asked.flags
    assert not [flag for flag in (*left.flags, *without.flags) if "CUDA" in flag]
    assert torch.equal(asked.xi, left.xi)
    assert torch.equal(asked.xi, without.xi)


# -- on a GPU ---------------------------------------------------------------------------------------------------------


def on_gpu(evidence, families="normal", last=()):
    """A question whose every tensor is on the GPU, in double precision so that rounding does not part the chains."""
    torch.manual_seed(0)
    decoder = nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 100), *last).double().cuda()
    prior = PriorModule(decoder, expand_families(families, 16), likelihood="bernoulli")
    return LatentPosterior(prior, evidence)


def image():
    return torch.linspace(0.1, 0.9, 100).double().cuda()


def classifier():
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(100, 20), nn.Softplus(), nn.Linear(20, 5)).double().cuda()


GPU_QUESTIONS = {
    "closed form": lambda: on_gpu(Gaussian(None, image(), 0.3)),
    "every family": lambda: on_gpu(Gaussian(None, image(), 0.3), [*FAMILIES, *["normal"] * (16 - len(FAMILIES))]),
    "part of the pixels": lambda: on_gpu(Masked(image(), torch.arange(100) % 3 > 0, 0.3)),
    "a classifier": lambda: on_gpu([Categorical(classifier(), 2, power=5.0), Gaussian(None, image(), 0.5)]),
    "a correlated measurement": lambda: on_gpu(
        Gaussian(None, image(), covariance=0.1 * torch.eye(100).double() + 0.01)
    ),
    "all by autograd": lambda: on_gpu(Gaussian(None, image(), 0.3), last=[nn.Softplus()]),
}


@pytest.mark.parametrize("name", GPU_QUESTIONS)
@pytest.mark.parametrize("integrator", INTEGRATORS)
@pytest.mark.parametrize("trajectory", ["chees", "fixed"])
@with_gpu
def test_captured_steps_give_the_plain_draws(name, integrator, trajectory):
    posterior = GPU_QUESTIONS[name]()
    settings = {"chains": 4, "integrator": integrator, "trajectory": trajectory}
    plain = HMC(**settings, graph=False).run(posterior, 20, warmup=30)
    captured = HMC(**settings).run(posterior, 20, warmup=30)
    assert captured.info["graph"] == "captured"
    assert captured.flags == plain.flags
    torch.testing.assert_close(captured.xi, plain.xi, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(captured.log_prob, plain.log_prob, rtol=1e-6, atol=1e-6)


@with_gpu
def test_captured_draws_ask_the_host_nothing():
    settings, generator = HMC(chains=4), torch.Generator("cuda").manual_seed(0)
    posterior = GPU_QUESTIONS["closed form"]()
    with torch.no_grad():
        run = _Run(settings, posterior, torch.randn(4, 16, generator=generator, device="cuda").double(), generator)
        assert run.graph == "captured"
        run.keep(range(2), 2, False)
        torch.cuda.synchronize()
        torch.cuda.set_sync_debug_mode("error")
        try:
            run.keep(range(10), 10, False)
        finally:
            torch.cuda.set_sync_debug_mode("default")


def waits_for_the_device(x):
    torch.cuda.synchronize()
    return x.sum(-1)


UNRECORDABLE = {
    "asks for a value": lambda x: x.sum(-1) * float(x.mean() < 1e9),
    "brings a tensor from the host": lambda x: x @ torch.ones(100).double().to(x.device),
    "waits for the device": waits_for_the_device,
}


@pytest.mark.parametrize("name", UNRECORDABLE)
@with_gpu
def test_evidence_that_cannot_be_recorded_is_followed_plainly(name):
    posterior = on_gpu(Criterion(UNRECORDABLE[name], 0.1))
    plain = HMC(chains=2, graph=False).run(posterior, 10, warmup=20)
    asked = HMC(chains=2, graph=True).run(posterior, 10, warmup=20)
    assert asked.info["graph"] != "captured"
    assert "no CUDA graph of a step" in asked.flags[0]
    torch.testing.assert_close(asked.xi, plain.xi, rtol=1e-6, atol=1e-6)
    # whatever was tried, the device is left as it was
    assert torch.cuda.current_stream() == torch.cuda.default_stream()
    assert torch.cuda.get_sync_debug_mode() == 0
    assert torch.randn(3, device="cuda").isfinite().all()
