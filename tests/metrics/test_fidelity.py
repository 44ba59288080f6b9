"""Fidelity scores: known values, a floor below everything else, labels, warnings, and what is refused."""

import importlib.util
import math
import pickle
import subprocess
import sys

import pytest
import torch

from autovae.data.datasets import load
from autovae.metrics.fidelity import Extractor, Features, compare, domain, extractor, inception, kid_of
from autovae.metrics.frechet import frechet_distance

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("torch_fidelity") is None, reason="torch-fidelity is not installed"
)


def features(n, shift=0.0, scale=1.0, seed=0, k=4):
    generator = torch.Generator().manual_seed(seed)
    values = shift + scale * torch.randn(n, k, generator=generator, dtype=torch.float64)
    return Features(values, values[:, :3])


def test_scores_of_laws_whose_distance_is_known():
    one, other = features(20_000), features(20_000, shift=1.0, scale=2.0, seed=1)
    scores = compare(features(600), features(600, seed=1), subsets=20)
    assert abs(scores.fid) < 0.1
    assert abs(scores.kid) < 3 * scores.kid_error
    assert scores.precision > 0.9
    assert scores.recall > 0.9
    # Normal laws with C = 1 and C' = 4 and means 1 apart, in 4 dimensions: 4 (1 + (2 - 1)^2).
    assert frechet_distance(one.values, other.values) == pytest.approx(8, rel=0.03)
    far = compare(features(2000), features(2000, shift=1.0, scale=2.0, seed=1))
    assert far.fid == pytest.approx(
        frechet_distance(features(2000).values, features(2000, 1.0, 2.0, 1).values), rel=1e-6
    )
    assert far.kid > 10 * far.kid_error


def test_kid_is_the_unbiased_square_distance_of_the_cubic_kernel():
    a, b = features(60).values, features(60, shift=0.5, seed=1).values

    def kernel(x, y):
        return (x @ y.T / x.shape[1] + 1) ** 3

    def off(k):
        return (k.sum() - k.trace()) / (len(k) * (len(k) - 1))

    exact = off(kernel(a, a)) + off(kernel(b, b)) - 2 * kernel(a, b).mean()
    mean, error = kid_of(Features(a, a), Features(b, b))
    assert mean == pytest.approx(exact.item(), abs=4 * error / math.sqrt(20))


def test_the_inception_score_of_certain_and_even_classes_is_their_number():
    logits = 50 * torch.eye(5, dtype=torch.float64).repeat(100, 1)
    sure = Features(torch.randn(500, 2, dtype=torch.float64), logits)
    assert compare(sure, sure, subsets=2).inception_score == pytest.approx(5, rel=0.1)
    blurred = Features(sure.values, torch.zeros_like(logits))
    assert compare(blurred, sure, subsets=2).inception_score == pytest.approx(1)


def test_fewer_points_than_features_are_warned_of():
    few = compare(features(20, k=30), features(20, seed=1, k=30))
    assert "does not have full rank" in few.warnings[0]
    assert "biased upwards" in compare(features(50, k=30), features(50, seed=1, k=30)).warnings[0]
    assert not compare(features(70, k=30), features(70, seed=1, k=30)).warnings
    assert "same sizes" in compare(features(70, k=30), features(90, seed=1, k=30)).warnings[0]
    with pytest.raises(ValueError, match="at least 10"):
        compare(features(9), features(20))


def test_domain_features_are_labelled_and_their_accuracy_reported(tmp_path, monkeypatch):
    monkeypatch.setattr("autovae.model.classifiers._epochs", lambda settings, points: 12)
    data = load("digits")
    network = extractor("domain", data, cache=tmp_path)
    assert network.label == "digits-cnn features"
    assert 0.5 < network.facts["accuracy"] <= 1
    real = data.test.x.float().view(-1, 8, 8) / data.levels
    found = network(real)
    assert found.values.shape == (len(real), 128)
    assert found.logits.shape == (len(real), 10)
    assert torch.equal(domain(data, tmp_path)(real).values, found.values)  # the same network, from the cache


def test_points_that_are_not_finite_are_refused():
    network = Extractor("plain", lambda x: (x, x))
    with pytest.raises(ValueError, match="NaN or infinite"):
        network(torch.full((20, 2), float("nan")))


def test_bad_requests(tmp_path):
    digits, vectors = load("digits"), load(torch.randn(60, 4).numpy())
    with pytest.raises(ValueError, match="no labels"):
        domain(vectors)
    with pytest.raises(ValueError, match="images in"):
        inception(vectors)
    with pytest.raises(ValueError, match="'domain'"):
        extractor("domian", digits)
    with pytest.raises(ValueError, match="take no weights"):
        domain(digits, weights="w.pth")


class Trap:
    def __reduce__(self):
        return (pytest.fail, ("a pickle was opened",))


def test_a_file_that_is_not_inception_is_refused_and_runs_nothing(tmp_path):
    digits = load("digits")
    torch.save({"fc.weight": torch.zeros(2)}, tmp_path / "other.pth")
    (tmp_path / "trap.pth").write_bytes(pickle.dumps(Trap()))
    torch.save({"fc.weight": Trap()}, tmp_path / "trap2.pth")
    for name in ("other.pth", "trap.pth", "trap2.pth", "missing.pth"):
        with pytest.raises(ValueError, match="does not hold the weights of Inception-v3"):
            inception(digits, weights=tmp_path / name)


def test_without_a_network_it_says_where_the_weights_are(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    with pytest.raises(ValueError, match=r"download https://.* --weights, or use --features domain"):
        inception(load("digits"))


def test_without_torch_fidelity_it_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch_fidelity", None)
    monkeypatch.setitem(sys.modules, "torch_fidelity.metric_kid", None)
    with pytest.raises(ValueError, match=r"autovae\[fidelity\]"):
        kid_of(features(20), features(20))


@pytest.mark.slow
def test_importing_the_metrics_imports_no_torch_fidelity():
    code = "import sys, autovae.metrics.fidelity; assert not {'torch_fidelity', 'torchvision'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.slow
def test_inception_from_a_file_gives_its_features(tmp_path):
    from autovae.metrics.fidelity import _torch_fidelity

    part = _torch_fidelity("feature_extractor_inceptionv3")
    net, kept = None, part.load_state_dict_from_url
    original = part.FeatureExtractorInceptionV3.load_state_dict
    try:  # random weights serve: the shapes and the way through are tested
        part.load_state_dict_from_url = lambda *a, **k: {}
        part.FeatureExtractorInceptionV3.load_state_dict = lambda self, state, **k: None
        net = part.FeatureExtractorInceptionV3("inception", ["2048", "logits_unbiased"])
    finally:
        part.load_state_dict_from_url, part.FeatureExtractorInceptionV3.load_state_dict = kept, original
    torch.save(net.state_dict(), tmp_path / "inception.pth")
    digits = load("digits")
    x = torch.rand(12, 8, 8)
    found = inception(digits, weights=tmp_path / "inception.pth")(x)
    assert found.values.shape == (12, 2048)
    levels = (x * 256).floor().clamp(0, 255).to(torch.uint8)[:, None].expand(-1, 3, -1, -1)
    torch.testing.assert_close(found.values, net(levels)[0].double())
    assert "does not have full rank" in compare(found, found).warnings[0]
