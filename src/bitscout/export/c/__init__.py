# SPDX-License-Identifier: Apache-2.0
"""C99 without dependencies, and images for a Cortex-M, from an integer graph."""

from bitscout.export.c.project import CortexMMemory, TestVectors, write_c

__all__ = ["CortexMMemory", "TestVectors", "write_c"]
