# SPDX-License-Identifier: Apache-2.0
"""Joint search of architecture, width and bit-width for small quantized neural networks."""

__all__ = ["__version__"]

__version__ = "0.1.0"
