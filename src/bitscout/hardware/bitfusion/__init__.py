# SPDX-License-Identifier: Apache-2.0
"""Bit Fusion: a systolic array whose multipliers fuse from 2-bit bricks [Sharma2018]_.

References:
    .. [Sharma2018] H. Sharma et al. Bit Fusion: Bit-Level Dynamically Composable Architecture for
       Accelerating Deep Neural Networks. ISCA 2018. https://arxiv.org/abs/1712.01507
"""

from bitscout.hardware.bitfusion.convolutions import DepthwiseMode
from bitscout.hardware.bitfusion.model import BitFusion

__all__ = ["BitFusion", "DepthwiseMode"]
