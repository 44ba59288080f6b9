"""Decoders for other programs give the module's numbers, for batches of any size."""

import sys

import pytest
import torch

from autovae.data.datasets import load
from autovae.export.card import to_prior
from autovae.export.onnx import exported, write_onnx
from autovae.model.vae import build
from autovae.spec import VAESpec
from autovae.training.trained import Trained


def prior(**settings):
    data = load("digits")
    vae = build(VAESpec(latent_dim=3, hidden=(8,), **settings), data.domain)
    return to_prior(Trained(vae, [], vae.spec, data))


@pytest.mark.slow
def test_an_exported_program_decodes_alike():
    module = prior(prior={"cauchy": 2, "normal": 1})
    z = module.sample(7)
    torch.testing.assert_close(exported(module).module()(z), module.decode(z))


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [{}, {"likelihood": "continuous_bernoulli"}, {"likelihood": "normal", "scale": "pixel"}, {"activation": "gelu"}],
)
def test_another_runtime_decodes_alike(tmp_path, settings):
    pytest.importorskip("onnxscript", reason="onnxscript is not installed")
    runtime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    module = prior(**settings)
    path = write_onnx(module, tmp_path / "decoder.onnx")
    session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    for batch in (1, 5):
        z = module.sample(batch)
        (x,) = session.run(None, {"z": z.numpy()})
        torch.testing.assert_close(torch.as_tensor(x), module.decode(z), rtol=1e-4, atol=1e-5)
    assert {file.name for file in tmp_path.iterdir()} == {"decoder.onnx"}


def test_without_onnx_it_says_how_to_install_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ValueError, match=r"autovae\[onnx\]"):
        write_onnx(prior(), tmp_path / "decoder.onnx")


def test_other_precisions_are_refused(tmp_path):
    pytest.importorskip("onnxscript", reason="onnxscript is not installed")
    with pytest.raises(ValueError, match="float32"):
        write_onnx(prior().double(), tmp_path / "decoder.onnx")
