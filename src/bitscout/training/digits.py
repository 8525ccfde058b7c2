# SPDX-License-Identifier: Apache-2.0
"""The handwritten digits that come with scikit-learn."""

from __future__ import annotations

import numpy as np

from bitscout.training.assemble import LabelledArrays, RawDataset

__all__ = ["load_digits"]


def load_digits() -> RawDataset:
    """Return 1,797 images of 8x8 pixels in 10 classes; nothing is downloaded.

    scikit-learn's pixels are 0..16. They are stored as ``(255 * v + 8) // 16``, which is
    ``255 * v / 16`` rounded half up; ``v = (16 * u + 127) // 255`` gives them back. There is no
    official test part, so `assemble` carves out a fifth: 360 images, always the same.
    """
    from sklearn import datasets  # Takes 1 s to import, and only this loader needs it.

    bunch = datasets.load_digits()
    levels = bunch.images.astype(np.int64)
    images = ((255 * levels + 8) // 16).astype(np.uint8)
    arrays = LabelledArrays(images, bunch.target.astype(np.int64), "scikit-learn's digits")
    names = tuple(str(digit) for digit in range(10))
    return RawDataset(name="digits", train=arrays, test=None, class_names=names)
