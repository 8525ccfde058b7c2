# SPDX-License-Identifier: Apache-2.0
"""What a candidate costs, computed from its layers alone, without PyTorch."""

from bitscout.hardware.chain_memory import chain_flash_bytes, chain_peak_bytes
from bitscout.hardware.lookup import BoundTable, LookupTable
from bitscout.hardware.lookup_file import load_table, save_table
from bitscout.hardware.mcu import Microcontroller
from bitscout.hardware.measured import Measured, Quantities
from bitscout.hardware.model import HardwareModel, LayerModel, constant, layer_kinds, tunable
from bitscout.hardware.reference_networks import REFERENCE_NETWORKS, reference_network
from bitscout.hardware.registry import (
    HardwareSpec,
    hardware_names,
    load_hardware,
    with_absolute_paths,
)
from bitscout.hardware.report import CostReport, LayerCost
from bitscout.hardware.size import SizeReport, size_report

__all__ = [
    "REFERENCE_NETWORKS",
    "BoundTable",
    "CostReport",
    "HardwareModel",
    "HardwareSpec",
    "LayerCost",
    "LayerModel",
    "LookupTable",
    "Measured",
    "Microcontroller",
    "Quantities",
    "SizeReport",
    "chain_flash_bytes",
    "chain_peak_bytes",
    "constant",
    "hardware_names",
    "layer_kinds",
    "load_hardware",
    "load_table",
    "reference_network",
    "save_table",
    "size_report",
    "tunable",
    "with_absolute_paths",
]
