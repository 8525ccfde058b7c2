# SPDX-License-Identifier: Apache-2.0
"""Random shifts and mirror images, in batch, on the device, straight from the uint8 pixels.

One gather per batch does everything: sample ``n`` reads row ``reflect(i + dy[n])`` and column
``reflect(j + dx[n])``, with the columns in reverse order where the sample is mirrored. No padded
copy of the data set is made. Because whole channels-last pixels are gathered, the result is
channels-last without a further copy.
"""

from __future__ import annotations

import torch
from torch import Tensor

from bitscout.errors import ConfigError
from bitscout.training.data import ImageData

__all__ = ["Augmenter", "default_shift"]


def default_shift(height: int, width: int) -> int:
    """Return the largest shift in pixels: an eighth of the shorter edge, at least 1.

    That is 4 for the 32 pixels of CIFAR, the customary value, and 1 for the 8 of digits.
    """
    return max(1, round(min(height, width) / 8))


class Augmenter:
    """Draws augmented, normalized training batches.

    Every shift in ``-shift .. shift`` is equally likely, independently for rows and columns, and
    a mirror image has probability 1/2. What a shift brings in from outside the image is its
    reflection at the edge (the edge pixel itself is not repeated), as in airbench: unlike black,
    it keeps the mean and variance that the images were normalized with.

    Args:
        data: Its training split is read.
        flip: Draw mirror images.
        shift: Largest shift in pixels, ``0 <= shift < min(H, W)``.

    Raises:
        ConfigError: If `shift` is out of range.
    """

    def __init__(self, data: ImageData, *, flip: bool, shift: int) -> None:
        _, height, width = data.input_shape
        if not 0 <= shift < min(height, width):
            msg = (
                f"`shift` must be in [0, {min(height, width) - 1}] for images of {height}x{width} "
                f"pixels, got {shift}."
            )
            raise ConfigError(msg)
        self._n_shifts = 2 * shift + 1
        self._normalize = data.normalizer()
        # A view, not a copy, since splits are channels-last: (N, H, W, C).
        self._pixels = data.train.images.permute(0, 2, 3, 1)
        self._rows = _shifted(height, shift).to(data.device)
        columns = _shifted(width, shift).to(data.device)
        self._columns = torch.stack((columns, columns.flip(1))) if flip else columns[None]

    def __call__(self, indices: Tensor, generator: torch.Generator) -> Tensor:
        """Return the training images at `indices` as network inputs, augmented.

        Args:
            indices: int64, shape ``(n,)``, on the data's device.
            generator: On the data's device.

        Returns:
            float32, shape ``(n, C, H, W)``, channels-last.
        """
        shape, device = (len(indices),), indices.device
        dy = torch.randint(self._n_shifts, shape, generator=generator, device=device)
        dx = torch.randint(self._n_shifts, shape, generator=generator, device=device)
        mirror = torch.randint(len(self._columns), shape, generator=generator, device=device)
        rows, columns = self._rows[dy], self._columns[mirror, dx]
        pixels = self._pixels[indices[:, None, None], rows[:, :, None], columns[:, None, :]]
        return self._normalize(pixels.permute(0, 3, 1, 2))


def _shifted(length: int, shift: int) -> Tensor:
    """Return the source index of every pixel for every shift, shape ``(2 * shift + 1, length)``.

    Example:
        >>> _shifted(4, 1)
        tensor([[1, 0, 1, 2],
                [0, 1, 2, 3],
                [1, 2, 3, 2]])
    """
    index = torch.arange(length) + torch.arange(-shift, shift + 1)[:, None]
    index = index.abs()
    return torch.where(index < length, index, 2 * (length - 1) - index)
