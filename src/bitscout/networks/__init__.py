# SPDX-License-Identifier: Apache-2.0
"""Networks as ordinary modules, and the way from a module back to its layers."""

from bitscout.networks.blocks import ConvBnAct, InvertedResidual, same_padding
from bitscout.networks.build import build_network

__all__ = ["ConvBnAct", "InvertedResidual", "build_network", "same_padding"]
