# SPDX-License-Identifier: Apache-2.0
"""Small data and networks for the tests of training."""

import pytest
import torch
from torch import nn

from bitscout.training import ImageData, Split, load_dataset


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    """Two threads that wait for each other on a busy machine take ten times as long as one."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def digits():
    return load_dataset("digits")


@pytest.fixture
def make_data():
    """Build data of a given size whose pixels and labels are random but fixed."""

    def build(n=64, shape=(1, 8, 8), n_classes=4, *, flip=False):
        generator = torch.Generator().manual_seed(0)

        def split(size):
            images = torch.randint(256, (size, *shape), generator=generator, dtype=torch.uint8)
            return Split(images, torch.arange(size) % n_classes)

        train = split(n)
        channels = shape[0]
        return ImageData(
            name="noise",
            train=train,
            val=split(2 * n_classes),
            test=split(3 * n_classes),
            n_classes=n_classes,
            mean=(0.5,) * channels,
            std=(0.25,) * channels,
            flip=flip,
        )

    return build


@pytest.fixture
def make_net():
    """Build a small convolutional network with batch norm, for 8x8 images, from a seed."""

    def build(channels=1, n_classes=10, *, seed=0, dropout=0.0):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return nn.Sequential(
                nn.Conv2d(channels, 8, 3, padding=1, bias=False),
                nn.BatchNorm2d(8),
                nn.ReLU(),
                nn.Conv2d(8, 16, 3, stride=2, padding=1),
                nn.ReLU(),
                nn.Flatten(),
                nn.Dropout(dropout),
                nn.Linear(16 * 4 * 4, n_classes),
            )

    return build
