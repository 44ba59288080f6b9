"""Decoders for other programs: `torch.export` and ONNX of z -> x, the batch of any size.

    exported(prior)               torch.export.ExportedProgram: decode without autovae, `.module()(z)`
    write_onnx(prior, "d.onnx")   the same as ONNX (extra `onnx`): input z (batch, latent_dim), output x (batch, *shape)

Exports `PriorModule.decode`: latents in, data units out. Draw latents with `prior.sample` or from their families. An ONNX
file is checked against the module before it is written. Not here: folders that load as prior modules (`card`).
"""

from __future__ import annotations

import logging
import os
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from autovae.export.prior import PriorModule
from autovae.files import write_bytes

__all__ = ["exported", "write_onnx"]

TOLERANCE = 1e-4  # relative to the largest value: other orders of summation, nothing more


class _Decode(nn.Module):
    """`decode` as the forward of a module, which is what exporters take."""

    def __init__(self, prior: PriorModule) -> None:
        super().__init__()
        self.prior = prior

    def forward(self, z: Tensor) -> Any:
        return self.prior.decode(z)


def _example(prior: PriorModule, batch: int) -> Tensor:
    return prior.sample(batch, torch.Generator().manual_seed(batch))


def exported(prior: PriorModule) -> torch.export.ExportedProgram:
    """z (batch, latent_dim) -> x (batch, *shape) as an exported program, the batch of any size."""
    batch = {"z": {0: torch.export.Dim("batch")}}
    return torch.export.export(_Decode(prior), (_example(prior, 4),), dynamic_shapes=batch)


def write_onnx(prior: PriorModule, path: str | os.PathLike[str]) -> Path:
    """Write the decoder as ONNX; raises `ValueError` where onnx is missing or the file disagrees with the module."""
    try:
        import onnx
        from onnx.reference import ReferenceEvaluator
        from onnxscript import opset18
    except ImportError:
        raise ValueError("an ONNX decoder needs onnx and onnxscript: pip install 'autovae[onnx]'") from None
    if prior.dtype != torch.float32:
        raise ValueError(
            f"got a prior of {prior.dtype}; expected float32, which every runtime of ONNX takes: prior.float()"
        )

    def signbit(values: Any) -> Any:
        """Of the mean of a continuous Bernoulli; torch has no translation of its own."""
        opset: Any = opset18
        return opset.Less(values, opset.CastLike(0.0, values))

    level = logging.getLogger("torch.onnx").level
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                exported(prior),
                (),
                input_names=["z"],
                output_names=["x"],
                dynamo=True,
                verbose=False,
                custom_translation_table={torch.ops.prims.signbit.default: signbit},
            )
    finally:
        logging.getLogger("torch.onnx").setLevel(level)
    assert program is not None
    model = program.model_proto
    onnx.checker.check_model(model)
    z = _example(prior, 3)
    outputs: Any = ReferenceEvaluator(model).run(None, {"z": z.numpy()})
    got = torch.as_tensor(outputs[0])
    expected = prior.decode(z)
    error = float((got - expected).abs().max() / expected.abs().max().clamp(min=1e-6))
    if tuple(got.shape) != tuple(expected.shape) or not error <= TOLERANCE:
        raise ValueError(
            f"the ONNX decoder differs from the module (relative error {error:.1e}); report it with the card of the prior"
        )
    return write_bytes(path, model.SerializeToString())
