# SPDX-License-Identifier: Apache-2.0
"""The half of `peer_mct.py` that runs in the environment of Sony's model-compression-toolkit.

    PYTHON_OF_THE_PEER benchmarks/peer_mct_worker.py JOB.json RESULT.json

JOB names a file of weights for `bitscout.networks.build_model("resnet8")`, an `.npz` with
normalized float32 `calibration`, `images` and `labels`, and the average weight bits to reach.
The peer only needs torchvision's names to exist, so that they are made up where it is missing.
"""

from __future__ import annotations

import enum
import json
import sys
import time
import types
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from torch import nn

SHIMMED = (
    "torchvision",
    "torchvision.ops",
    "torchvision.models",
    "torchvision.transforms",
    "torchvision.transforms.functional",
    "torchvision.transforms.transforms",
)
INTERPOLATIONS = "NEAREST BILINEAR BICUBIC BOX HAMMING LANCZOS NEAREST_EXACT"
CANDIDATES = {"own": (8, 4, 2), "same": (8, 6, 4, 3, 2)}  # "own": of the peer's default target
BATCH = 64


class Shim(types.ModuleType):
    """A module with every name; none of them works."""

    def __getattr__(self, name: str) -> object:
        if name.startswith("__"):
            raise AttributeError(name)
        if name == "InterpolationMode":
            return enum.Enum(name, INTERPOLATIONS)
        return type(name, (), {})


def shim_torchvision() -> None:
    if find_spec("torchvision") is not None:
        return
    for name in SHIMMED:
        module = Shim(name)
        module.__path__, module.__spec__ = [], ModuleSpec(name, None)
        module.__version__ = "0.28.0"  # The peer asks for 0.18 or later.
        sys.modules[name] = module
        parent, _, child = name.rpartition(".")
        if parent:
            setattr(sys.modules[parent], child, module)


def target(widths: tuple[int, ...]) -> object:
    """Return the peer's default target with these weight bits, without padding to its SIMD."""
    import model_compression_toolkit as mct

    default = mct.get_target_platform_capabilities()
    sets = []
    for operators in default.operator_set:
        options = operators.qc_options
        if options is None or len(options.quantization_configurations) == 1:
            sets.append(operators)
            continue
        base = options.base_config
        kernel = base.attr_weights_configs_mapping["kernel_attr"]
        configurations = tuple(
            base.model_copy(
                update={
                    "attr_weights_configs_mapping": base.attr_weights_configs_mapping
                    | {"kernel_attr": kernel.model_copy(update={"weights_n_bits": bits})},
                    "simd_size": 1,
                }
            )
            for bits in widths
        )
        changed = options.model_copy(
            update={
                "quantization_configurations": configurations,
                "base_config": configurations[0],
            }
        )
        sets.append(operators.model_copy(update={"qc_options": changed}))
    return default.model_copy(update={"operator_set": tuple(sets), "is_simd_padding": False})


def weight_bits(model: nn.Module) -> dict[str, tuple[int, int]]:
    """Return weights and bits of every layer."""
    found = {}
    for name, module in model.named_modules():
        for attribute, quantizer in getattr(module, "weights_quantizers", {}).items():
            if attribute == "weight":
                found[name] = (module.weight.numel(), quantizer.num_bits)
    return found


@torch.no_grad()
def accuracy(model: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> float:
    model.eval()
    pairs = zip(images.split(500), labels.split(500), strict=True)
    return sum(int((model(x).argmax(1) == y).sum()) for x, y in pairs) / len(labels)


def run(job: dict[str, object]) -> list[dict[str, object]]:
    shim_torchvision()
    import model_compression_toolkit as mct
    from safetensors.torch import load_file

    from bitscout.networks import build_model

    core = mct.core
    torch.set_num_threads(1)
    with np.load(str(job["data"])) as arrays:
        calibration, images, labels = (
            torch.from_numpy(arrays[name]) for name in ("calibration", "images", "labels")
        )
    rows = []
    for kind in job["candidates"]:
        for average in job["average_bits"]:
            net = build_model("resnet8").eval()
            net.load_state_dict(load_file(str(job["weights"])))
            n_weights = sum(p.numel() for p in net.parameters() if p.dim() > 1)

            def batches():
                for batch in calibration.split(BATCH):
                    yield [batch]

            start = time.process_time()
            quantized, _ = mct.ptq.pytorch_post_training_quantization(
                net,
                batches,
                core.ResourceUtilization(weights_memory=n_weights * average / 8),
                core.CoreConfig(
                    mixed_precision_config=core.MixedPrecisionQuantizationConfig(
                        num_of_images=int(job["sensitivity_images"])
                    )
                ),
                target(CANDIDATES[kind]),
            )
            seconds = time.process_time() - start
            layers = weight_bits(quantized)
            bits = sum(count * width for count, width in layers.values())
            rows.append(
                {
                    "candidates": kind,
                    "average_bits": average,
                    "weight_bytes": bits / 8,
                    "bits": {name: width for name, (_, width) in layers.items()},
                    "accuracy": accuracy(quantized, images, labels),
                    "cpu_seconds": seconds,
                    "version": mct.__version__,
                }
            )
            print(rows[-1], flush=True)
    return rows


if __name__ == "__main__":
    work, result = map(Path, sys.argv[1:])
    result.write_text(json.dumps(run(json.loads(work.read_text()))))
