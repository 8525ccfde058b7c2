# SPDX-License-Identifier: Apache-2.0
"""What an integer graph computes: the definition every other format is compared with."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt

from bitscout.errors import DataError
from bitscout.export.bounds import magnitudes
from bitscout.export.graph import Input, IntegerGraph
from bitscout.export.kernels import Kernel, kernel_of, storage_type

__all__ = ["Reference"]

IntArray = npt.NDArray[np.int64]
# Of elements of the largest tensor that run at once, so that it stays in a core's cache.
BATCH_ELEMENTS = 2**18
MAX_THREADS = 4  # More wait for each other's turn in Python.


class Reference:
    """Runs an `IntegerGraph` in NumPy, exactly: no result depends on an order of summation.

    Args:
        graph: The network.
        n_threads: Batches at a time; the processors there are if `None`, at most 4.

    Example:
        >>> from bitscout.export.graph import Grid
        >>> image = Input("image", (1, 1, 2), Grid(np.array(0.5), 4, -8, 7))
        >>> reference = Reference(IntegerGraph((image,), "image"))
        >>> reference.run(np.array([[[[0.75, -9.0]]]], dtype=np.float32)).tolist()
        [[[[2, -8]]]]
    """

    def __init__(self, graph: IntegerGraph, n_threads: int | None = None) -> None:
        self.graph = graph
        self._n_threads = n_threads or min(os.cpu_count() or 1, MAX_THREADS)
        bounds = magnitudes(graph)
        self._kernels: dict[str, Kernel] = {
            op.name: kernel_of(op, graph, bounds) for op in graph if not isinstance(op, Input)
        }
        # What nobody reads later is dropped after the operation of this name.
        last = {name: op.name for op in graph for name in op.inputs}
        self._dropped: dict[str, list[str]] = {op.name: [] for op in graph}
        for name, reader in last.items():
            self._dropped[reader].append(name)
        largest = max(int(np.prod(op.shape)) for op in graph)
        self._batch = max(1, BATCH_ELEMENTS // max(1, largest))

    def run(self, images: npt.NDArray[np.float32]) -> IntArray:
        """Return the network's output.

        Args:
            images: Shape ``(N, C, H, W)``, float32, preprocessed as in training.

        Returns:
            Integers of `IntegerGraph.output`, shape ``(N, *)``.

        Raises:
            DataError: If the images do not have the input's shape, or hold NaN.
        """
        return self.run_codes(self.quantize(images))

    def run_codes(self, codes: Mapping[str, npt.NDArray[np.integer]]) -> IntArray:
        """Return the network's output for codes of its inputs.

        Args:
            codes: For every `Input`, its codes, shape ``(N, C, H, W)``.

        Raises:
            DataError: If an input is missing, or its codes have another shape or range.
        """
        n = self._check(codes)
        output = self.graph[self.graph.output]
        result = np.empty((n, *output.shape), dtype=np.int64)

        def fill(start: int) -> None:
            rows = slice(start, start + self._batch)
            for name, values in self._walk({key: x[rows] for key, x in codes.items()}):
                if name == output.name:
                    result[rows] = _channels_first(values)

        # NumPy lets other threads run while it computes.
        with ThreadPoolExecutor(self._n_threads) as pool:
            list(pool.map(fill, range(0, n, self._batch)))
        return result

    def tensors(self, images: npt.NDArray[np.float32]) -> dict[str, IntArray]:
        """Return every tensor of the network, by the name of its operation.

        Args:
            images: As for `run`. Everything is kept in memory, 8 bytes an element.

        Returns:
            Integers of shape ``(N, C, H, W)`` or ``(N, features)``.
        """
        codes = self.quantize(images)
        n = self._check(codes)
        result = {op.name: np.empty((n, *op.shape), dtype=np.int64) for op in self.graph}
        for start in range(0, n, self._batch):
            rows = slice(start, start + self._batch)
            for name, values in self._walk({key: x[rows] for key, x in codes.items()}):
                result[name][rows] = _channels_first(values)
        return result

    def quantize(self, images: npt.NDArray[np.float32]) -> dict[str, IntArray]:
        """Return the images as codes of every input, shape ``(N, C, H, W)``.

        In float32, as the network in training does: ``clamp(half_even(x / scale) + zero_point)``.
        Infinity saturates.

        Raises:
            DataError: If the images do not have the input's shape, or hold NaN.
        """
        images = np.asarray(images, dtype=np.float32)
        if np.isnan(images).any():
            msg = "Expected images of numbers, got NaN. Look at the preprocessing."
            raise DataError(msg)
        codes: dict[str, IntArray] = {}
        for op in self.graph.inputs:
            _check_shape(images.shape, op)
            grid = op.grid
            values = np.rint(images / np.float32(grid.scale)) + np.float32(grid.zero_point)
            codes[op.name] = np.clip(values, grid.quant_min, grid.quant_max).astype(np.int64)
        return codes

    def _check(self, codes: Mapping[str, npt.NDArray[np.integer]]) -> int:
        """Return the number of images."""
        lengths = set()
        for op in self.graph.inputs:
            if op.name not in codes:
                msg = f"Expected codes of the input {op.name!r}, got those of {sorted(codes)}."
                raise DataError(msg)
            values = codes[op.name]
            _check_shape(values.shape, op)
            low, high = op.grid.quant_min, op.grid.quant_max
            if values.size and not (low <= values.min() and values.max() <= high):
                msg = (
                    f"Expected codes of {op.name!r} from {low} to {high}, got {values.min()} to "
                    f"{values.max()}. Make them with `Reference.quantize`."
                )
                raise DataError(msg)
            lengths.add(len(values))
        if len(lengths) != 1:
            msg = f"Expected as many images for every input, got {sorted(lengths)}."
            raise DataError(msg)
        return lengths.pop()

    def _walk(
        self, codes: Mapping[str, npt.NDArray[np.integer]]
    ) -> Iterator[tuple[str, npt.NDArray[Any]]]:
        """Yield the name and the values, channels last, of one tensor after the other."""
        alive: dict[str, npt.NDArray[Any]] = {}
        for op in self.graph:
            if isinstance(op, Input):
                stored = storage_type(op.grid, np.zeros(0))
                values = np.moveaxis(codes[op.name], 1, -1).astype(stored, order="C")
            else:
                values = self._kernels[op.name](*(alive[name] for name in op.inputs))
            alive[op.name] = values
            yield op.name, values
            for name in self._dropped[op.name]:
                del alive[name]


def _channels_first(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return np.moveaxis(values, -1, 1)


def _check_shape(shape: tuple[int, ...], op: Input) -> None:
    if shape[1:] != op.shape or not shape:
        wanted = ", ".join(["N", *map(str, op.shape)])
        msg = f"Expected images of shape ({wanted}) for {op.name!r}, got {shape}."
        raise DataError(msg)
