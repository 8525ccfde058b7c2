# SPDX-License-Identifier: Apache-2.0
"""Costs that a command measures: a real board, or a simulator, in the loop."""

from bitscout.hardware.measured.model import Measured
from bitscout.hardware.measured.quantities import Quantities

__all__ = ["Measured", "Quantities"]
