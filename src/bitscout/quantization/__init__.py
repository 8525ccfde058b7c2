# SPDX-License-Identifier: Apache-2.0
"""How tensors become integers: numerics, observers, learned steps, modules, calibration."""

from bitscout.quantization.add import Add

__all__ = ["Add"]
