# SPDX-License-Identifier: Apache-2.0
"""A trained network back from its run directory."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from bitscout.networks import build_network
from bitscout.pipeline.components import build_quantization
from bitscout.pipeline.config import RunConfig
from bitscout.pipeline.records import FinalRecord
from bitscout.pipeline.spaces import run_space
from bitscout.quantization import prepare
from bitscout.space import SearchSpace
from bitscout.training import load_weights

__all__ = ["reload_network"]


def reload_network(
    directory: Path,
    record: FinalRecord,
    config: RunConfig,
    dataset: Mapping[str, Any],
    space: SearchSpace | None = None,
    module: nn.Module | None = None,
) -> nn.Module:
    """Return a final network or baseline, fake-quantized, in evaluation mode, on the CPU.

    Args:
        directory: The run directory.
        record: Which network.
        config: The run's configuration.
        dataset: The run's ``dataset.json``.
        space: The run's space, where that was handed over in Python.
        module: The given network, likewise.

    Raises:
        DataError: If the weights are missing, damaged or of another network.
    """
    channels, height, width = dataset["input_shape"]
    if space is None:
        space = run_space(directory, config, dataset, module=module)
    network = build_network(space.architecture(record.candidate.values), generator_seed=0)
    quantized = prepare(
        network,
        record.candidate.policy,
        torch.zeros(1, channels, height, width),
        build_quantization(config),
    )
    load_weights(quantized, directory / Path(record.files[0]))
    return quantized.eval()
