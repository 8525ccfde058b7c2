"""Runs ONNX files at every optimisation level; needs nothing but NumPy and ONNX Runtime.

    python onnx_runner.py FOLDER NAME...

reads ``FOLDER/images.npy`` and ``FOLDER/NAME.onnx`` and writes ``FOLDER/NAME.npy``, shape (levels,
images, classes). A program of its own, so that an emulator of another processor can run it.
"""

import sys
from pathlib import Path

import numpy as np
import onnxruntime

LEVELS = ("ORT_DISABLE_ALL", "ORT_ENABLE_BASIC", "ORT_ENABLE_EXTENDED", "ORT_ENABLE_ALL")


def run(path, images, level):
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, level)
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: images})[0]


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    images = np.load(folder / "images.npy")
    for name in sys.argv[2:]:
        outputs = [run(folder / f"{name}.onnx", images, level) for level in LEVELS]
        np.save(folder / f"{name}.npy", np.stack(outputs))
