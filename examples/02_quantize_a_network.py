# SPDX-License-Identifier: Apache-2.0
"""Quantize a network of your own: train, calibrate at 3 bits, fine-tune, and compare.

python examples/02_quantize_a_network.py
"""

import os

from bitscout.core import QuantPolicy
from bitscout.networks import resnet
from bitscout.quantization import layer_names, post_training_quantize
from bitscout.training import Recipe, calibration_batch, evaluate, load_dataset, train

epochs = int(os.environ.get("BITSCOUT_EXAMPLE_BUDGET", "8"))
data = load_dataset("digits")
recipe = Recipe(epochs=epochs, qaft_epochs=2, batch_size=64)

network = resnet(8, n_classes=10, in_channels=1, base_width=8)
train(network, data, recipe.float_phase(), seed=0, device="cpu")
print(f"float            {evaluate(network, data, 'val', device='cpu'):.3f}")

# First and last layer at 8 bits, the others at 3; activations at 8.
names = layer_names(network)
bits = {name: [8 if name in (names[0], names[-1]) else 3, 8] for name in names}
policy = QuantPolicy.from_json(bits)
quantized = post_training_quantize(network, policy, calibration_batch(data, 512, seed=0))
print(f"3 bit calibrated {evaluate(quantized, data, 'val', device='cpu'):.3f}")

train(quantized, data, recipe.qaft_phase(), seed=0, device="cpu")
print(f"3 bit fine-tuned {evaluate(quantized, data, 'val', device='cpu'):.3f}")
