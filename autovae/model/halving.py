r"""Fast 4 x 4 convolutions of stride 2 and padding 1, which halve or double the sides of an image.

CPU convolutions are slow on images of one channel, which leave most of a vector register empty. So the four pixels of a
2 x 2 block become four channels of an image half the size, and the kernel becomes a zero-padded one of 3 x 3:

    halving     conv(x, w; stride 2) = conv(unshuffle(x), v)        v[o, 4 c + 2 r + s, i, j] = w[o, c, 2 i + r - 1, 2 j + s - 1]
    doubling    conv'(x, w; stride 2) = shuffle(conv'(x, v))        conv' the transposed convolution

Images of several channels are stored `channels_last`. Values equal those of `nn.Conv2d` and `nn.ConvTranspose2d` up to
rounding, weights have the same names and shapes, and derivatives come from autograd. On CUDA, and for odd sides, torch's
own convolutions are used.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["DoublingConv", "HalvingConv", "Image"]


class Image(nn.Unflatten):
    """Flat features (N, F) -> images (N, channels, rows, columns), channels last in memory."""

    def __init__(self, channels: int, rows: int, columns: int) -> None:
        super().__init__(1, (channels, rows, columns))

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).to(memory_format=torch.channels_last)


class HalvingConv(nn.Conv2d):
    """Images (N, channels, rows, columns) -> (N, outputs, rows / 2, columns / 2), odd sides rounded down."""

    def __init__(self, channels: int, outputs: int) -> None:
        super().__init__(channels, outputs, 4, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        if self.in_channels > 1 or x.is_cuda or x.shape[-1] % 2 or x.shape[-2] % 2:
            return super().forward(x)
        blocks = functional.pixel_unshuffle(x, 2).contiguous(memory_format=torch.channels_last)
        return functional.conv2d(blocks, _of_blocks(self.weight), self.bias, padding=1)


class DoublingConv(nn.ConvTranspose2d):
    """Images (N, channels, rows, columns) -> (N, outputs, 2 rows, 2 columns)."""

    def __init__(self, channels: int, outputs: int) -> None:
        super().__init__(channels, outputs, 4, 2, 1)

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        if self.out_channels > 1 or x.is_cuda or output_size is not None:
            return super().forward(x, output_size)
        kernel = _of_blocks(self.weight).transpose(0, 1).flip(2, 3)
        bias = None if self.bias is None else self.bias.expand(4)
        return functional.pixel_shuffle(functional.conv2d(x, kernel, bias, padding=1), 2)


def _of_blocks(weight: Tensor) -> Tensor:
    """Kernels (o, c, 4, 4) of pixels as kernels (o, 4 c, 3, 3) of 2 x 2 blocks."""
    o, c = weight.shape[:2]
    blocks = functional.pad(weight, (1, 1, 1, 1)).reshape(o, c, 3, 2, 3, 2)
    return blocks.permute(0, 1, 3, 5, 2, 4).reshape(o, 4 * c, 3, 3)
