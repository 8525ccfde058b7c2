# SPDX-License-Identifier: Apache-2.0
from dataclasses import FrozenInstanceError, replace

import pytest
import torch

from bitscout.errors import DataError
from bitscout.training import Split, calibration_batch


def test_images_are_kept_channels_last_with_the_same_values():
    images = torch.arange(2 * 3 * 4 * 5, dtype=torch.uint8).view(2, 3, 4, 5)
    split = Split(images, torch.tensor([0, 1]))
    assert split.images.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(split.images, images)
    assert len(split) == 2


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (torch.zeros(2, 1, 4, 4), torch.zeros(2, dtype=torch.int64), "Expected uint8 images"),
        (
            torch.zeros(2, 4, 4, dtype=torch.uint8),
            torch.zeros(2, dtype=torch.int64),
            r"of shape \(N, C, H, W\), got torch.uint8 of shape \(2, 4, 4\)",
        ),
        (
            torch.zeros(2, 1, 4, 4, dtype=torch.uint8),
            torch.zeros(3, dtype=torch.int64),
            r"Expected int64 labels of shape \(2,\), got torch.int64 of shape \(3,\)",
        ),
        (torch.zeros(2, 1, 4, 4, dtype=torch.uint8), torch.zeros(2), "Expected int64 labels"),
        (
            torch.zeros(0, 1, 4, 4, dtype=torch.uint8),
            torch.zeros(0, dtype=torch.int64),
            "holds no images",
        ),
    ],
)
def test_malformed_splits_are_rejected(images, labels, message):
    with pytest.raises(DataError, match=message):
        Split(images, labels)


def test_data_is_immutable(make_data):
    with pytest.raises(FrozenInstanceError):
        make_data().name = "other"


def test_moving_to_the_same_device_copies_nothing(make_data):
    data = make_data()
    assert data.to("cpu").train.images.data_ptr() == data.train.images.data_ptr()
    assert data.to("cpu").val.images.data_ptr() == data.val.images.data_ptr()
    assert len(data.to("cpu").split("test")) == len(data.split("test"))


def test_the_test_split_cannot_be_reached_where_it_was_withheld(make_data):
    data = make_data()
    closed = data.without_test()
    with pytest.raises(DataError, match=r"test split of 'noise' is withheld"):
        closed.split("test")
    with pytest.raises(DataError, match="withheld"):
        closed.to("cpu").split("test")
    assert data.split("test") is data.test
    assert closed.split("val") is data.val


def test_an_unknown_split_is_rejected(make_data):
    with pytest.raises(DataError, match="no split 'dev'; expected one of 'train', 'val', 'test'"):
        make_data().split("dev")


def test_splits_of_different_image_shapes_are_rejected(make_data):
    small, large = make_data(shape=(1, 8, 8)), make_data(shape=(1, 9, 8))
    with pytest.raises(DataError, match=r"val images of 'noise' have shape \(1, 9, 8\)"):
        replace(small, val=large.val)


@pytest.mark.parametrize("label", [-1, 4])
def test_labels_out_of_range_are_rejected(make_data, label):
    data = make_data(n_classes=4)
    labels = data.val.labels.clone()
    labels[3] = label
    with pytest.raises(DataError, match=rf"val labels .* must be in \[0, 3\], got {label}"):
        replace(data, val=Split(data.val.images, labels))


def test_a_wrong_number_of_class_names_is_rejected(make_data):
    with pytest.raises(DataError, match="Expected 4 class names, got 2"):
        replace(make_data(), class_names=("a", "b"))


def test_normalizer_is_the_textbook_formula_per_channel(make_data):
    data = replace(make_data(shape=(3, 4, 4)), mean=(0.1, 0.5, 0.9), std=(0.2, 0.25, 0.5))
    images = data.train.images
    mean = torch.tensor(data.mean).view(1, 3, 1, 1)
    std = torch.tensor(data.std).view(1, 3, 1, 1)
    expected = (images.double() / 255 - mean) / std
    actual = data.normalizer()(images)
    assert actual.dtype == torch.float32
    assert actual.is_contiguous(memory_format=torch.channels_last)
    # Three roundings of values up to 5, each half an ulp.
    torch.testing.assert_close(actual.double(), expected, rtol=0, atol=3 * 5 * 2**-23)
    assert torch.equal(images, data.train.images)


def test_normalized_training_images_have_mean_zero_and_variance_one(digits):
    x = digits.normalizer()(digits.train.images).double()
    assert abs(x.mean()) < 1e-6
    assert abs(x.std(correction=0) - 1) < 1e-6


def test_calibration_images_are_different_training_images_without_augmentation(make_data):
    data = make_data(n=40)
    batch = calibration_batch(data, 16, seed=3)
    every = data.normalizer()(data.train.images).flatten(1)
    matches = (batch.flatten(1)[:, None] == every[None]).all(2)
    assert batch.shape == (16, 1, 8, 8)
    assert matches.any(1).all()
    assert matches.sum() == 16
    assert torch.equal(batch, calibration_batch(data, 16, seed=3))
    assert not torch.equal(batch, calibration_batch(data, 16, seed=4))


def test_calibration_with_more_images_than_there_are_gives_all(make_data):
    assert len(calibration_batch(make_data(n=40), 1000, seed=0)) == 40
