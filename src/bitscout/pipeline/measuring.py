# SPDX-License-Identifier: Apache-2.0
"""ONNX files of networks that were never trained, for hardware that must see a file.

What a device needs for a network depends on its layers and their bits, hardly on the values of
its weights: random ones do, quantized after calibration on random images.
"""

from __future__ import annotations

import shutil
import tempfile
import weakref
from copy import deepcopy
from pathlib import Path

import torch
from torch import nn

from bitscout.core import QuantPolicy, child_seed
from bitscout.networks import build_network
from bitscout.quantization import QuantConfig, post_training_quantize
from bitscout.space import Architecture
from bitscout.training import torch_generator

__all__ = ["OnnxWriter", "onnx_writer"]

N_CALIBRATION_IMAGES = 16  # Enough to give every step a sensible order of magnitude.


class OnnxWriter:
    """Writes one network as an ONNX file when it is first called; see `onnx_writer`.

    The file lives as long as this object.

    Args:
        network: What to write.
        policy: Bits of every layer.
        input_shape: ``(C, H, W)`` or ``(features,)``.
        config: Quantizers.
        seed: Root of the weights' and the images' streams.
    """

    def __init__(
        self,
        network: Architecture | nn.Module,
        policy: QuantPolicy,
        input_shape: tuple[int, ...],
        config: QuantConfig | None,
        seed: int,
    ) -> None:
        self._network = network
        self._policy = policy
        self._input_shape = input_shape
        # Bias correction moves values, which no device's cost depends on, and takes time.
        self._config = config or QuantConfig(bias_correction=False)
        self._seed = seed
        self._path: Path | None = None

    def __call__(self) -> Path:
        """Return the path of the file, after writing it if this is the first call.

        Raises:
            UnsupportedError: If the network has no exact integer form, or cannot be an ONNX file.
            PolicyError: If the policy does not name exactly the layers of the network.
            ExportError: If the file cannot be written.
        """
        if self._path is None:
            folder = Path(tempfile.mkdtemp(prefix="bitscout-"))
            weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
            path = folder / "model.onnx"
            self._write(path)
            self._path = path
        return self._path

    def _write(self, path: Path) -> None:
        from bitscout.export import lower, write_onnx  # ONNX: only where it is used

        if isinstance(self._network, nn.Module):
            module = deepcopy(self._network)  # Its mode, training or not, stays as it is.
        else:
            module = build_network(self._network, generator_seed=child_seed(self._seed, "init"))
        generator = torch_generator(child_seed(self._seed, "images"))
        images = torch.randn(N_CALIBRATION_IMAGES, *self._input_shape, generator=generator)
        quantized = post_training_quantize(module.eval(), self._policy, images, self._config)
        write_onnx(lower(quantized, images[:1]), path)


def onnx_writer(
    network: Architecture | nn.Module,
    policy: QuantPolicy,
    input_shape: tuple[int, ...],
    *,
    config: QuantConfig | None = None,
    seed: int = 0,
) -> OnnxWriter:
    """Return a function that writes a network as an ONNX file and returns its path.

    It is what `HardwareModel.report` takes as `onnx`. Nothing is built before it is called, and
    a second call returns the same file. The same arguments give the same bytes, always.

    Args:
        network: An architecture, which gets random weights of `seed`; or a module in floating
            point, which keeps its own.
        policy: Bits of every layer.
        input_shape: Shape of one input without the batch.
        config: Quantizers; by default the usual ones without bias correction.
        seed: Root of the random weights and calibration images, >= 0.

    Example:
        >>> from bitscout.space import BompSpace
        >>> space = BompSpace(input_shape=(1, 8, 8))
        >>> values = space.seed_values()
        >>> writer = onnx_writer(space.architecture(values), space.policy(values), (1, 8, 8))
        >>> writer().name
        'model.onnx'
    """
    return OnnxWriter(network, policy, input_shape, config, seed)
