# SPDX-License-Identifier: Apache-2.0
"""How tensors become integers: numerics, observers, learned steps, modules, calibration."""

from bitscout.quantization.add import Add
from bitscout.quantization.calibrate import calibrate
from bitscout.quantization.config import QuantConfig
from bitscout.quantization.convert import Converted, convert
from bitscout.quantization.folding import fold_batch_norm
from bitscout.quantization.kept import KeptInFloat, kept_in_float, scale_sites
from bitscout.quantization.modules import (
    QuantAdd,
    QuantAvgPool,
    QuantConv2d,
    QuantizedLayer,
    QuantLinear,
    QuantModule,
)
from bitscout.quantization.norms import fold_norms, revive_norms
from bitscout.quantization.numerics import (
    fake_quantize,
    fixed_step,
    integer_range,
    learned_step,
)
from bitscout.quantization.observers import (
    ActivationObserver,
    ByWidthActivationObserver,
    ByWidthObserver,
    LayerOutputObserver,
    MaxAbsObserver,
    MinMaxObserver,
    MseActivationObserver,
    MseObserver,
    PercentileObserver,
    PowerOfTwoObserver,
    WeightObserver,
)
from bitscout.quantization.packing import pack_bits, packed_size, unpack_bits
from bitscout.quantization.per_tensor import PowerOfTwoPerTensorObserver
from bitscout.quantization.prepare import (
    layer_names,
    learned_steps,
    parameter_groups,
    post_training_quantize,
    prepare,
)
from bitscout.quantization.quantizers import ActivationQuantizer, WeightQuantizer
from bitscout.quantization.survey import LayerSite, layer_sites

__all__ = [
    "ActivationObserver",
    "ActivationQuantizer",
    "Add",
    "ByWidthActivationObserver",
    "ByWidthObserver",
    "Converted",
    "KeptInFloat",
    "LayerOutputObserver",
    "LayerSite",
    "MaxAbsObserver",
    "MinMaxObserver",
    "MseActivationObserver",
    "MseObserver",
    "PercentileObserver",
    "PowerOfTwoObserver",
    "PowerOfTwoPerTensorObserver",
    "QuantAdd",
    "QuantAvgPool",
    "QuantConfig",
    "QuantConv2d",
    "QuantLinear",
    "QuantModule",
    "QuantizedLayer",
    "WeightObserver",
    "WeightQuantizer",
    "calibrate",
    "convert",
    "fake_quantize",
    "fixed_step",
    "fold_batch_norm",
    "fold_norms",
    "integer_range",
    "kept_in_float",
    "layer_names",
    "layer_sites",
    "learned_step",
    "learned_steps",
    "pack_bits",
    "packed_size",
    "parameter_groups",
    "post_training_quantize",
    "prepare",
    "revive_norms",
    "scale_sites",
    "unpack_bits",
]
