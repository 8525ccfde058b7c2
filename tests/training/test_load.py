# SPDX-License-Identifier: Apache-2.0
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn import datasets
from torch.utils.data import Dataset, IterableDataset, TensorDataset

from bitscout.errors import ConfigError, DataError
from bitscout.training import DATASETS, from_dataset, load_dataset

CIFAR10 = Path(__file__).parents[3] / "shared" / "data" / "cifar10_packed.npz"


def images(n, *shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, *shape), dtype=np.uint8)


def rows_of(split):
    """The images as a set of byte strings."""
    return {image.numpy().tobytes() for image in split.images}


def arrays(n=60, n_test=20, n_classes=4):
    return {
        "x_train": images(n, 6, 5),
        "y_train": np.arange(n) % n_classes,
        "x_test": images(n_test, 6, 5, seed=1),
        "y_test": np.arange(n_test) % n_classes,
    }


@pytest.fixture
def npz(tmp_path):
    """Write arrays to a .npz file; a keyword replaces an array, `None` leaves it out."""

    def write(**changes):
        path = tmp_path / "set.npz"
        content = {key: value for key, value in (arrays() | changes).items() if value is not None}
        np.savez(path, **content)
        return path

    return write


# --- digits


def test_digits_split_has_the_documented_sizes_and_keeps_every_image_once(digits):
    assert [len(digits.split(part)) for part in ("train", "val", "test")] == [1293, 144, 360]
    assert digits.input_shape == (1, 8, 8)
    pixels = torch.cat([digits.split(part).images for part in ("train", "val", "test")])
    levels = (16 * pixels.flatten(1).numpy().astype(np.int64) + 127) // 255
    original = datasets.load_digits().data.astype(np.int64)
    assert sorted(map(tuple, levels)) == sorted(map(tuple, original))


def test_digits_pixels_are_rounded_half_up():
    levels = np.arange(17)
    stored = (255 * levels + 8) // 16
    assert stored.tolist() == np.floor(levels * 255 / 16 + 0.5).tolist()
    assert (stored[0], stored[8], stored[16]) == (0, 128, 255)


def test_digits_labels_belong_to_their_images(digits):
    bunch = datasets.load_digits()
    known = {
        ((255 * image.astype(np.int64) + 8) // 16).astype(np.uint8).tobytes(): label
        for image, label in zip(bunch.images, bunch.target, strict=True)
    }
    for part in ("train", "val", "test"):
        split = digits.split(part)
        assert [known[image.numpy().tobytes()] for image in split.images] == split.labels.tolist()


def test_no_test_image_reaches_training_or_validation(digits):
    test = rows_of(digits.split("test"))
    assert not test & rows_of(digits.train)
    assert not test & rows_of(digits.val)
    assert not rows_of(digits.val) & rows_of(digits.train)


def test_the_seed_moves_the_validation_split_but_never_the_test_split(digits):
    other = load_dataset("digits", seed=1)
    assert torch.equal(other.test.images, digits.test.images)
    assert rows_of(other.val) != rows_of(digits.val)
    again = load_dataset("digits", seed=1)
    assert torch.equal(again.val.images, other.val.images)


def test_the_split_is_the_same_in_another_process(digits):
    code = (
        "import json; from bitscout.training import load_dataset; d = load_dataset('digits');"
        "print(json.dumps([d.split(s).labels.tolist() for s in ('train', 'val', 'test')]))"
    )
    environment = os.environ | {"PYTHONHASHSEED": "7"}
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, check=True, env=environment
    )
    expected = [digits.split(part).labels.tolist() for part in ("train", "val", "test")]
    assert json.loads(result.stdout) == expected


def test_digits_are_not_mirrored(digits):
    assert not digits.flip


def test_a_limit_takes_a_subset_of_the_training_part_only(digits):
    small = load_dataset("digits", limit=400, validation=0.25)
    assert (len(small.train), len(small.val), len(small.split("test"))) == (300, 100, 360)
    assert torch.equal(small.test.images, digits.test.images)
    assert rows_of(small.train) | rows_of(small.val) <= rows_of(digits.train) | rows_of(digits.val)
    assert np.ptp(np.bincount(small.train.labels.numpy())) <= 2


def test_statistics_are_those_of_the_training_split_alone(digits):
    pixels = digits.train.images.double() / 255
    assert digits.mean == pytest.approx([pixels.mean().item()], rel=1e-12)
    assert digits.std == pytest.approx([pixels.std(correction=0).item()], rel=1e-12)


# --- npz


def test_npz_arrays_come_back_unchanged(npz):
    data = load_dataset("npz", npz(), validation=0.2)
    expected = arrays()
    assert data.name == "set"
    assert data.input_shape == (1, 6, 5)
    assert np.array_equal(data.test.images[:, 0].numpy(), expected["x_test"])
    assert np.array_equal(data.test.labels.numpy(), expected["y_test"])
    assert (len(data.train), len(data.val)) == (48, 12)
    assert rows_of(data.train) | rows_of(data.val) == {x.tobytes() for x in expected["x_train"]}


def test_npz_with_colour_names_and_a_label_column(npz):
    colour = images(60, 6, 5, 3)
    path = npz(
        x_train=colour,
        y_train=(np.arange(60) % 4)[:, None],
        x_test=images(20, 6, 5, 3),
        class_names=np.array(["a", "b", "c", "d"]),
    )
    data = load_dataset("npz", path, validation=0.2)
    assert data.input_shape == (3, 6, 5)
    assert data.class_names == ("a", "b", "c", "d")
    assert rows_of(data.train) <= {x.transpose(2, 0, 1).tobytes() for x in colour}


def test_npz_without_a_test_part_gets_a_stratified_fifth_whatever_the_seed(npz):
    path = npz(x_test=None, y_test=None)
    first, second = (load_dataset("npz", path, validation=0.25, seed=s) for s in (0, 1))
    assert (len(first.train), len(first.val), len(first.test)) == (36, 12, 12)
    assert np.bincount(first.test.labels.numpy()).tolist() == [3, 3, 3, 3]
    assert torch.equal(first.test.images, second.test.images)
    assert not rows_of(first.test) & (rows_of(first.train) | rows_of(first.val))


def test_npz_with_its_own_validation_part_keeps_it(npz):
    own = images(8, 6, 5, seed=2)
    data = load_dataset("npz", npz(x_val=own, y_val=np.arange(8) % 4))
    assert len(data.train) == 60
    assert np.array_equal(data.val.images[:, 0].numpy(), own)


def test_a_constant_channel_is_normalized_to_zero(npz):
    data = load_dataset("npz", npz(x_train=np.full((60, 6, 5), 9, np.uint8)), validation=0.2)
    x = data.normalizer()(data.train.images)
    torch.testing.assert_close(x, torch.zeros_like(x), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"y_train": None}, "key x_train comes without y_train; both are needed"),
        ({"x_test": None}, "key y_test comes without x_test"),
        ({"x_train": None, "y_train": None}, "x_train and y_train are needed, got x_test, y_test"),
        ({"x_train": images(60, 6, 5) / 255}, "x_train of set.npz: images must be uint8.*float64"),
        ({"x_train": images(60, 3, 6, 5)}, r"1 or 3 channels, got \(60, 3, 6, 5\). Move"),
        ({"x_train": images(60, 30)}, r"must have shape \(N, H, W\) or .*got \(60, 30\)"),
        ({"x_train": images(59, 6, 5)}, "59 images but 60 labels"),
        ({"x_train": images(0, 6, 5), "y_train": np.arange(0)}, "no images"),
        ({"y_train": np.arange(60) / 4}, "labels must be integers.*got float64"),
        ({"y_train": np.zeros((60, 4), int)}, r"labels must be integers.*of shape \(60, 4\)"),
        ({"y_train": np.arange(60) % 4 - 1}, r"labels must be in \[0, 2\], got -1"),
        ({"y_train": np.arange(60) % 4 + 1}, "labels go up to 4, but class 0 has no image"),
        ({"y_train": np.zeros(60, int)}, "only one class"),
        ({"y_test": np.arange(20) % 5}, r"test labels of 'set' must be in \[0, 3\], got 4"),
        ({"x_test": images(20, 5, 6)}, r"test images of 'set' have shape \(1, 5, 6\)"),
        ({"class_names": np.array(["a", "b", "c"])}, r"labels must be in \[0, 2\], got 3"),
        ({"y_train": np.array([4, *range(4)] * 1 + [0] * 55)}, "Class 1 has one image"),
        ({"x_train": np.array([None] * 60)}, "pickled Python objects, which are refused"),
    ],
)
def test_malformed_arrays_are_named_with_what_was_expected(npz, changes, message):
    with pytest.raises(DataError, match=message):
        load_dataset("npz", npz(**changes), validation=0.2)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(DataError, match=r"Expected a .npz file at .*no.npz, but there is none"):
        load_dataset("npz", tmp_path / "no.npz")


@pytest.mark.parametrize("kept", [0.0, 0.3, 0.9])
def test_a_truncated_file_is_an_error(npz, kept):
    path = npz()
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content))])
    with pytest.raises(DataError, match=r"is not a complete .npz file"):
        load_dataset("npz", path)


def test_a_damaged_member_is_an_error(npz):
    path = npz()
    content = bytearray(path.read_bytes())
    content[600:700] = bytes(100)
    path.write_bytes(content)
    with pytest.raises(DataError, match="is damaged or cut short"):
        load_dataset("npz", path)


def test_a_file_of_another_format_is_an_error(tmp_path):
    np.save(tmp_path / "x.npy", images(3, 4, 4))
    with pytest.raises(DataError, match=r"is not a complete .npz file"):
        load_dataset("npz", tmp_path / "x.npy")


def test_an_archive_without_known_keys_lists_what_it_holds(tmp_path):
    np.savez(tmp_path / "x.npz", data=images(3, 4, 4))
    with pytest.raises(DataError, match="x_train and y_train are needed, got data"):
        load_dataset("npz", tmp_path / "x.npz")


# --- arguments


def test_every_dataset_has_a_description():
    assert list(DATASETS) == ["digits", "npz", "imagefolder", "cifar10", "cifar100"]
    assert all(DATASETS.values())


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("cifar1O", {}, "Unknown dataset 'cifar1O'; expected one of .*Did you mean 'cifar10'"),
        ("zzz", {}, r"Unknown dataset 'zzz'; expected one of digits, npz, .*cifar100\.$"),
        ("digits", {"path": "x"}, "'digits' is embedded and takes no `path`, got 'x'"),
        ("digits", {"resize": 8}, "`resize` applies to 'imagefolder' only, not to 'digits'"),
        ("npz", {}, "Dataset 'npz' needs a `path`"),
        ("digits", {"limit": 0}, "`limit` must be at least 1, got 0"),
        ("imagefolder", {"path": "x", "resize": 0}, "`resize` must be at least 1 pixel, got 0"),
    ],
)
def test_arguments_that_do_not_apply_are_rejected(name, arguments, message):
    with pytest.raises(ConfigError, match=message):
        load_dataset(name, **arguments)


@pytest.mark.parametrize("validation", [0.0, 1.0, -0.5])
def test_validation_fractions_out_of_range_are_rejected(validation):
    with pytest.raises(DataError, match=r"validation fraction must be in \(0, 1\)"):
        load_dataset("digits", validation=validation)


# --- imagefolder


@pytest.fixture
def folder(tmp_path):
    """A folder of grey images: 10 per class for training, 2 for each other part."""

    def write(*parts, mode="L", suffix=".png", size=(5, 6)):
        for seed, part in enumerate(parts):
            for label, name in enumerate(("cat", "dog")):
                (tmp_path / part / name).mkdir(parents=True, exist_ok=True)
                shape = (size[1], size[0]) if mode == "L" else (size[1], size[0], 3)
                count = 10 if part == "train" else 2
                for i, pixels in enumerate(images(count, *shape, seed=10 * seed + label)):
                    Image.fromarray(pixels).save(tmp_path / part / name / f"{i}{suffix}")
        return tmp_path

    return write


def test_imagefolder_reads_pixels_labels_and_names(folder):
    root = folder("train", "test")
    (root / "train" / "cat" / ".DS_Store").touch()
    (root / "train" / "cat" / "notes.txt").write_text("not an image")
    data = load_dataset("imagefolder", root, validation=0.2)
    assert data.class_names == ("cat", "dog")
    assert data.input_shape == (1, 6, 5)
    assert (len(data.train), len(data.val), len(data.test)) == (16, 4, 4)
    assert data.test.labels.tolist() == [0, 0, 1, 1]
    assert np.array_equal(data.test.images[:2, 0].numpy(), images(2, 6, 5, seed=10))


@pytest.mark.parametrize(
    ("parts", "sizes"),
    [
        (("train",), (14, 2, 4)),
        (("train", "val"), (18, 2, 4)),
        (("train", "val", "test"), (20, 4, 4)),
    ],
)
def test_which_folder_is_which_part(folder, parts, sizes):
    data = load_dataset("imagefolder", folder(*parts), validation=0.1)
    assert tuple(len(data.split(part)) for part in ("train", "val", "test")) == sizes


def test_grey_and_colour_together_are_colour(folder):
    root = folder("train", "test")
    Image.fromarray(images(1, 6, 5, 3)[0]).save(root / "train" / "cat" / "0.png")
    data = load_dataset("imagefolder", root, validation=0.2)
    assert data.input_shape == (3, 6, 5)
    assert torch.equal(data.test.images[:, 0], data.test.images[:, 2])


def test_jpeg_and_transparent_images_are_read_as_colour(folder):
    root = folder("train", mode="RGB", suffix=".JPG")
    Image.fromarray(images(1, 6, 5, 4)[0]).save(root / "train" / "dog" / "x.png")
    assert load_dataset("imagefolder", root).input_shape == (3, 6, 5)


def test_resize_makes_all_images_square(folder):
    root = folder("train")
    Image.fromarray(images(1, 9, 9)[0]).save(root / "train" / "dog" / "x.png")
    data = load_dataset("imagefolder", root, resize=4)
    assert data.input_shape == (1, 4, 4)
    assert len(data.train) + len(data.val) + len(data.test) == 21


def test_images_of_different_sizes_name_the_first_one(folder):
    root = folder("train")
    Image.fromarray(images(1, 9, 8)[0]).save(root / "train" / "dog" / "odd.png")
    message = r"dog/odd.png is 8x9 pixels, but .*cat/0.png is 5x6. Set `resize`"
    with pytest.raises(DataError, match=message):
        load_dataset("imagefolder", root)


def test_a_damaged_image_is_named(folder):
    root = folder("train")
    path = root / "train" / "dog" / "3.png"
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(DataError, match=r"dog/3.png cannot be read as an image"):
        load_dataset("imagefolder", root)


def test_a_text_file_called_png_is_named(folder):
    root = folder("train")
    (root / "train" / "dog" / "x.png").write_text("hello")
    with pytest.raises(DataError, match=r"dog/x.png cannot be read as an image"):
        load_dataset("imagefolder", root)


def test_images_of_sixteen_bits_are_refused(folder):
    root = folder("train")
    Image.fromarray(np.zeros((6, 5), np.uint16)).save(root / "train" / "dog" / "x.png")
    with pytest.raises(
        DataError, match="expected 8 bits per channel, got an image of mode 'I;16'"
    ):
        load_dataset("imagefolder", root)


def test_malformed_folders_are_explained(folder, tmp_path):
    with pytest.raises(DataError, match=r"Expected a folder .*train with one folder per class"):
        load_dataset("imagefolder", tmp_path / "nowhere")
    (tmp_path / "train").mkdir()
    with pytest.raises(DataError, match="has no class folders; expected"):
        load_dataset("imagefolder", tmp_path)
    root = folder("train", "test")
    (root / "test" / "fish").mkdir()
    with pytest.raises(DataError, match="has classes that train has not: fish"):
        load_dataset("imagefolder", root)
    (root / "test" / "fish").rename(root / "train" / "fish")
    with pytest.raises(
        DataError, match=r"train/fish has no images; expected files ending in .png"
    ):
        load_dataset("imagefolder", root)


# --- CIFAR


def write_records(path, n, n_classes, label_bytes, seed):
    pixels = images(n, 3, 32, 32, seed=seed)
    labels = (np.arange(n) % n_classes).astype(np.uint8)
    prefix = [np.full(n, 255, np.uint8)] * (label_bytes - 1)
    records = np.column_stack([*prefix, labels, pixels.reshape(n, -1)])
    records.tofile(path)
    return pixels, labels


@pytest.fixture
def cifar_folder(tmp_path):
    folder = tmp_path / "cifar-10-batches-bin"
    folder.mkdir()
    for i in range(1, 6):
        write_records(folder / f"data_batch_{i}.bin", 20, 10, 1, seed=i)
    write_records(folder / "test_batch.bin", 30, 10, 1, seed=9)
    return folder


def test_cifar10_records_are_read_from_the_folder_or_its_parent(cifar_folder):
    data = load_dataset("cifar10", cifar_folder, validation=0.2)
    assert data.input_shape == (3, 32, 32)
    assert np.array_equal(data.test.images.numpy(), images(30, 3, 32, 32, seed=9))
    assert data.test.labels.tolist() == [i % 10 for i in range(30)]
    expected = {x.tobytes() for i in range(1, 6) for x in images(20, 3, 32, 32, seed=i)}
    assert rows_of(data.train) | rows_of(data.val) == expected
    assert data.flip
    assert data.class_names[3] == "cat"
    parent = load_dataset("cifar10", cifar_folder.parent, validation=0.2)
    assert torch.equal(parent.train.images, data.train.images)


def test_cifar100_uses_the_fine_label(tmp_path):
    write_records(tmp_path / "train.bin", 1000, 100, 2, seed=0)
    pixels, labels = write_records(tmp_path / "test.bin", 200, 100, 2, seed=1)
    data = load_dataset("cifar100", tmp_path)
    assert data.n_classes == 100
    assert np.array_equal(data.test.images.numpy(), pixels)
    assert np.array_equal(data.test.labels.numpy(), labels)


def test_cifar_from_npz_equals_cifar_from_records(cifar_folder, tmp_path):
    pixels = np.concatenate([images(20, 3, 32, 32, seed=i) for i in range(1, 6)])
    np.savez(
        tmp_path / "c.npz",
        x_train=pixels.transpose(0, 2, 3, 1),
        y_train=np.tile(np.arange(20) % 10, 5).astype(np.uint8),
        x_test=images(30, 3, 32, 32, seed=9).transpose(0, 2, 3, 1),
        y_test=np.arange(30) % 10,
    )
    ours = load_dataset("cifar10", tmp_path / "c.npz", validation=0.2)
    theirs = load_dataset("cifar10", cifar_folder, validation=0.2)
    assert ours.name == "cifar10"
    assert ours.flip
    for part in ("train", "val", "test"):
        assert torch.equal(ours.split(part).images, theirs.split(part).images)
        assert torch.equal(ours.split(part).labels, theirs.split(part).labels)
    assert (ours.mean, ours.std) == (theirs.mean, theirs.std)


def test_a_folder_of_pickles_is_refused_with_the_remedy(tmp_path):
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    (folder / "data_batch_1").write_bytes(b"\x80\x02}q\x00.")
    message = "holds the python version of cifar10.*not read.*cifar-10-binary.tar.gz.*from_dataset"
    for path in (folder, tmp_path):
        with pytest.raises(DataError, match=message):
            load_dataset("cifar10", path)


def test_cifar_errors_name_files(cifar_folder, tmp_path, npz):
    test = cifar_folder / "test_batch.bin"
    test.write_bytes(test.read_bytes()[:-1])
    with pytest.raises(DataError, match=r"test_batch.bin is cut short.*records of 3073 bytes"):
        load_dataset("cifar10", cifar_folder)
    test.unlink()
    with pytest.raises(DataError, match=r"lacks test_batch.bin of the binary version of cifar10"):
        load_dataset("cifar10", cifar_folder)
    with pytest.raises(DataError, match=r"does not hold cifar10.*got \(60, 6, 5\) in 4"):
        load_dataset("cifar10", npz())


@pytest.mark.slow
@pytest.mark.skipif(not CIFAR10.is_file(), reason="needs ../shared/data")
def test_the_real_cifar10_has_its_published_statistics(tmp_path):
    reader = CIFAR10.parent / "image_pack.py"
    target = tmp_path / "cifar10.npz"
    subprocess.run([sys.executable, "-B", reader, "unpack", CIFAR10, target], check=True)
    data = load_dataset("cifar10", target)
    assert [len(data.split(part)) for part in ("train", "val", "test")] == [45_000, 5_000, 10_000]
    assert np.bincount(data.val.labels).tolist() == [500] * 10
    # The customary constants are of all 50,000 training images.
    assert data.mean == pytest.approx((0.4914, 0.4822, 0.4465), abs=1e-3)
    assert data.std == pytest.approx((0.2470, 0.2435, 0.2616), abs=1e-3)
    few = load_dataset("cifar10", target, limit=10_000)
    assert (len(few.train), len(few.val), len(few.test)) == (9_000, 1_000, 10_000)


# --- torch data sets


class Pairs(Dataset):
    """Items from a list, counting how often each is read."""

    def __init__(self, items):
        self.items = items
        self.n_reads = [0] * len(items)

    def __len__(self):
        return len(self.items)

    def __getitem__(self, index):
        self.n_reads[index] += 1
        return self.items[index]


class Endless(IterableDataset):
    def __iter__(self):
        yield from ()


PIXELS = images(40, 6, 5, 3)
LABELS = [i % 4 for i in range(40)]
FORMS = {
    "pil": lambda x: Image.fromarray(x),
    "uint8": lambda x: torch.from_numpy(x).permute(2, 0, 1),
    "float32": lambda x: torch.from_numpy(x).permute(2, 0, 1) / 255,
    "float16": lambda x: (torch.from_numpy(x).permute(2, 0, 1) / 255).half(),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("label", [int, np.int64, torch.tensor])
def test_a_dataset_equals_the_same_arrays_from_a_file(npz, form, label):
    path = npz(x_train=PIXELS, y_train=np.asarray(LABELS), x_test=None, y_test=None)
    expected = load_dataset("npz", path, validation=0.25, seed=3)
    pairs = Pairs([(FORMS[form](x), label(y)) for x, y in zip(PIXELS, LABELS, strict=True)])
    data = from_dataset(pairs, validation=0.25, seed=3)
    for part in ("train", "val", "test"):
        assert torch.equal(data.split(part).images, expected.split(part).images)
        assert torch.equal(data.split(part).labels, expected.split(part).labels)
    assert pairs.n_reads == [1] * 40


def test_a_dataset_of_its_own_for_testing_and_a_limit():
    x = torch.from_numpy(PIXELS).permute(0, 3, 1, 2)
    train, test = TensorDataset(x, torch.tensor(LABELS)), TensorDataset(x[:8], torch.arange(8) % 4)
    data = from_dataset(train, test, name="mine", limit=20, validation=0.2, flip=True)
    assert (data.name, data.flip) == ("mine", True)
    assert (len(data.train), len(data.val)) == (16, 4)
    assert torch.equal(data.test.images, x[:8])


def test_grey_tensors_without_a_channel_axis_are_accepted():
    x = torch.from_numpy(images(40, 6, 5))
    data = from_dataset(TensorDataset(x, torch.tensor(LABELS)), validation=0.25)
    assert data.input_shape == (1, 6, 5)


GOOD = (torch.zeros(1, 4, 4, dtype=torch.uint8), 0)


@pytest.mark.parametrize(
    ("items", "message"),
    [
        ([], "the data set is empty"),
        (
            [GOOD, GOOD[0]],
            r"dataset \(train\), item 1: expected a pair \(image, label\), got Tens",
        ),
        ([GOOD, (*GOOD, 1)], "item 1: expected a pair"),
        ([(np.zeros((4, 4)), 0)], "item 0: expected a PIL image or a tensor, got ndarray"),
        ([(torch.zeros(1, 4, 4, dtype=torch.int64), 0)], "uint8 or float tensor, got torch.int64"),
        ([(torch.zeros(1, 1, 4, 4), 0)], r"a tensor \(C, H, W\) or \(H, W\), got \(1, 1, 4, 4\)"),
        ([(torch.full((1, 4, 4), 0.3), 0)], r"must be k / 255.*got values in \[0.3, 0.3\]"),
        ([(torch.full((1, 4, 4), -1.0), 0)], r"got values in \[-1, -1\]. Remove normalization"),
        ([(torch.full((1, 4, 4), 2.0), 0)], r"must be k / 255"),
        ([(torch.full((1, 4, 4), torch.nan), 0)], r"must be k / 255"),
        ([GOOD, (torch.zeros(1, 4, 5, dtype=torch.uint8), 0)], r"item 1: shape \(4, 5, 1\), but"),
        ([(GOOD[0], "cat")], "item 0: expected an integer label, got 'cat'"),
        ([(GOOD[0], 1.5)], "expected an integer label, got 1.5"),
        ([(GOOD[0], True)], "expected an integer label, got True"),
        ([(GOOD[0], torch.tensor([0, 1]))], r"expected an integer label, got tensor\(\[0, 1\]\)"),
    ],
)
def test_items_that_are_no_images_with_labels_are_named(items, message):
    with pytest.raises(DataError, match=message):
        from_dataset(Pairs(items))


def test_a_dataset_without_a_length_is_rejected():
    with pytest.raises(DataError, match="expected a data set with a length, got Endless"):
        from_dataset(Endless())
