# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare
from torch.nn import functional as F

from bitscout.errors import ConfigError
from bitscout.training import Augmenter, ImageData, Split, default_shift, torch_generator


def data_of(images):
    """Data whose normalizer is the identity up to a factor of 255, so that pixels are legible."""
    split = Split(images, torch.arange(len(images)) % 2)
    channels = images.shape[1]
    return ImageData(
        name="made",
        train=split,
        val=split,
        test=None,
        n_classes=2,
        mean=(0.0,) * channels,
        std=(1 / 255,) * channels,
    )


def numbered(height, width, channels=1):
    """One image, repeated, in which every pixel has its own value."""
    pixels = torch.arange(height * width, dtype=torch.uint8).view(1, 1, height, width)
    return pixels + 100 * torch.arange(channels, dtype=torch.uint8).view(1, -1, 1, 1)


def every_variant(image, shift, *, flip):
    """All (flip, dy, dx) -> crop of the padded image, by torch's own reflection padding."""
    _, _, height, width = image.shape
    variants = {}
    for mirrored in (False, True) if flip else (False,):
        source = image.flip(3) if mirrored else image
        padded = F.pad(source.double(), (shift,) * 4, mode="reflect")
        for dy in range(2 * shift + 1):
            for dx in range(2 * shift + 1):
                crop = padded[:, :, dy : dy + height, dx : dx + width]
                variants[mirrored, dy - shift, dx - shift] = crop[0]
    return variants


def drawn(image, shift, n, *, flip, seed=0):
    """Draw `n` augmented copies; return which variant each is."""
    data = data_of(image.repeat(2, 1, 1, 1))
    batch = Augmenter(data, flip=flip, shift=shift)(
        torch.zeros(n, dtype=torch.int64), torch_generator(seed)
    )
    variants = every_variant(image, shift, flip=flip)
    keys = list(variants)
    table = torch.stack(list(variants.values())).flatten(1)
    matches = (batch.double().round().flatten(1)[:, None] == table[None]).all(2)
    assert matches.any(1).all()
    return [keys[i] for i in matches.int().argmax(1).tolist()]


@given(
    size=st.tuples(st.integers(5, 9), st.integers(5, 9)),
    channels=st.sampled_from([1, 3]),
    shift=st.integers(0, 4),
    flip=st.booleans(),
    seed=st.integers(0, 2**40),
)
def test_every_draw_is_a_crop_of_the_reflected_and_maybe_mirrored_image(
    size, channels, shift, flip, seed
):
    drawn(numbered(*size, channels), shift, 8, flip=flip, seed=seed)


def test_shifts_are_uniform_and_half_of_the_images_mirrored():
    n = 9000
    keys = np.asarray(drawn(numbered(11, 10), 4, n, flip=True))
    for column in (1, 2):
        counts = np.bincount(keys[:, column] + 4, minlength=9)
        assert len(counts) == 9
        assert chisquare(counts).pvalue > 1e-4
    # Five standard deviations of a fair coin.
    assert abs(keys[:, 0].mean() - 0.5) < 5 * 0.5 / np.sqrt(n)
    for first, second in ((0, 1), (0, 2), (1, 2)):
        assert abs(np.corrcoef(keys[:, first], keys[:, second])[0, 1]) < 5 / np.sqrt(n)


def test_without_flip_nothing_is_mirrored():
    assert not any(mirrored for mirrored, _, _ in drawn(numbered(8, 8), 1, 200, flip=False))


def test_without_shift_and_flip_the_images_are_only_normalized(digits):
    rows = torch.tensor([7, 0, 7, 300])
    batch = Augmenter(digits, flip=False, shift=0)(rows, torch_generator(0))
    assert torch.equal(batch, digits.normalizer()(digits.train.images[rows]))


def test_each_row_of_the_batch_comes_from_its_index():
    images = (torch.arange(20, dtype=torch.uint8) * 10).view(20, 1, 1, 1).expand(20, 3, 6, 6)
    rows = torch.randperm(20, generator=torch_generator(0))
    batch = Augmenter(data_of(images), flip=True, shift=2)(rows, torch_generator(1))
    assert torch.equal(batch[:, 0, 0, 0].round().long(), rows * 10)


def test_mean_and_variance_of_normalized_images_survive(digits):
    rows = torch.arange(len(digits.train)).repeat(4)
    batch = Augmenter(digits, flip=False, shift=1)(rows, torch_generator(0))
    # Reflection repeats the second row and column instead of the outermost, a small bias.
    assert abs(batch.mean()) < 0.1
    assert abs(batch.var() - 1) < 0.1


def test_batches_are_float32_and_channels_last(digits):
    batch = Augmenter(digits, flip=False, shift=1)(torch.arange(5), torch_generator(0))
    assert batch.dtype == torch.float32
    assert batch.shape == (5, 1, 8, 8)
    assert batch.is_contiguous(memory_format=torch.channels_last)


def test_draws_depend_on_the_generator_only():
    first, again, other = (drawn(numbered(8, 8), 2, 50, flip=True, seed=s) for s in (3, 3, 4))
    assert first == again != other


def test_the_data_is_not_changed(digits):
    before = digits.train.images.clone()
    Augmenter(digits, flip=True, shift=3)(torch.arange(64), torch_generator(0))
    assert torch.equal(digits.train.images, before)


@pytest.mark.parametrize("shift", [-1, 8])
def test_shifts_out_of_range_are_rejected(digits, shift):
    with pytest.raises(ConfigError, match=rf"`shift` must be in \[0, 7\] .* got {shift}"):
        Augmenter(digits, flip=False, shift=shift)


@pytest.mark.parametrize(
    ("size", "shift"), [((32, 32), 4), ((8, 8), 1), ((4, 4), 1), ((28, 28), 4), ((64, 48), 6)]
)
def test_default_shift_is_an_eighth_of_the_shorter_edge(size, shift):
    assert default_shift(*size) == shift
