# SPDX-License-Identifier: Apache-2.0
"""The names a configuration or a command may use, each with one line.

Kept apart from what they name, so that ``bitscout list`` does not import PyTorch; a test compares
them with the configuration's allowed values.
"""

from __future__ import annotations

from importlib import resources

__all__ = ["entries"]

_NAMES: dict[str, dict[str, str]] = {
    "spaces": {
        "bomp": "MobileNetV2 blocks and the bits of every layer, Table I of BOMP-NAS.",
        "model": "Bits and widths of a given network: space.model is its name or import path.",
    },
    "searchers": {
        "bomp": "Gaussian process with an upper confidence bound; searcher.surrogate is paper, "
        "edit-distance or scaled.",
        "guided": "Of given networks: an integer program's solutions, then exchanges that a "
        "Gaussian process with the layers' sensitivities as prior believes in.",
        "kmeans-tpe": "Parzen estimators of the best and the worst cluster of trials.",
        "random": "Uniform over the space, without repetitions.",
        "tpe": "Optuna's tree-structured Parzen estimator.",
        "gp": "Optuna's Gaussian process.",
        "nsga2": "Optuna's NSGA-II, for objective.front.",
        "nsga3": "Optuna's NSGA-III, for objective.front with three or more metrics.",
    },
    "datasets": {
        "digits": "8x8 handwritten digits, embedded: needs no file.",
        "npz": "A NumPy archive with images and labels; dataset.path is the file.",
        "imagefolder": "Images in train/CLASS/ and test/CLASS/; dataset.path is the folder.",
        "cifar10": "CIFAR-10; dataset.path is its folder or file.",
        "cifar100": "CIFAR-100; dataset.path is its folder or file.",
    },
}


# Built-in networks that are modules and can be searched; the others are tables of layers.
SEARCHED = ("mobilenet_v1", "mobilenet_v2", "resnet18", "resnet20", "resnet50", "resnet8")
_MODULES = {"resnet8": "ResNet-8 with projections in its shortcuts, small images"}


def entries(kind: str) -> dict[str, str]:
    """Return name and description of everything of `kind`.

    Args:
        kind: ``presets``, ``hardware``, ``models``, or one of the kinds above.
    """
    if kind == "presets":
        return _presets()
    if kind in ("hardware", "models"):
        # NumPy, and what other packages announce: only where it is asked for.
        from bitscout.hardware import REFERENCE_NETWORKS, hardware_names

        found = hardware_names() if kind == "hardware" else {**REFERENCE_NETWORKS, **_MODULES}
        if kind == "models":
            found = {n: t if n in SEARCHED else f"{t}; costs only" for n, t in found.items()}
        return {name: f"{text.rstrip('.')}." for name, text in sorted(found.items())}
    return _NAMES[kind]


def _presets() -> dict[str, str]:
    """Return the presets in the package with the first sentence of each file's first comment."""
    found = {}
    for entry in (resources.files("bitscout") / "presets").iterdir():
        if entry.name.endswith(".yaml"):
            text = entry.read_text(encoding="utf-8")
            found[entry.name.removesuffix(".yaml")] = _first_sentence(text)
    return dict(sorted(found.items()))


def _first_sentence(text: str) -> str:
    comment = []
    for line in text.splitlines():
        if not line.startswith("#"):
            break
        comment.append(line.removeprefix("#").strip())
    return " ".join(comment).split(". ")[0].rstrip(".") + "."
