# SPDX-License-Identifier: Apache-2.0
"""Small networks of many kinds, each made by a function, with the shape of its input.

``make("shuffle")`` returns one with seeded weights and seeded batch-norm statistics.
"""

from itertools import pairwise

import torch
import torch.nn.functional as F
from tests.networks.zoo_branching import (
    CrossStage,
    Dense,
    DualPath,
    Ghost,
    InceptionNet,
    Shuffle,
)
from tests.networks.zoo_residual import (
    Grouped,
    Inverted,
    PreActivation,
    Residual,
    ShakeShake,
    SqueezeExcitationNet,
    StochasticDepth,
    conv_bn,
)
from torch import nn

from bitscout.training import fork_rng


class Plain(nn.Module):
    """VGG with nested, numbered sequences and a flattened map."""

    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(
            nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(True)),
            nn.MaxPool2d(2, 2),
            nn.Sequential(nn.Conv2d(8, 12, 3, padding=1), nn.BatchNorm2d(12), nn.ReLU(True)),
            nn.MaxPool2d(2, 2),
        )
        self.classifier = nn.Sequential(
            nn.Linear(12 * 2 * 2, 16), nn.ReLU(True), nn.Dropout(), nn.Linear(16, 10)
        )

    def forward(self, x):
        x = self.features(x)
        return self.classifier(x.view(x.size(0), 12 * 2 * 2))


class Mlp(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(
            nn.Flatten(), nn.Linear(192, 16, bias=False), nn.BatchNorm1d(16), nn.ReLU()
        )
        self.hidden = nn.Linear(16, 16)
        self.out = nn.Linear(16, 10)

    def forward(self, x):
        x = self.net(x)
        return self.out(torch.tanh(self.hidden(x)))


class FunctionalActivations(nn.Module):
    def __init__(self):
        super().__init__()
        widths = (3, 8, 8, 8, 8, 8, 8)
        self.convs = nn.ModuleList(nn.Conv2d(i, o, 3, padding=1) for i, o in pairwise(widths))
        self.fc = nn.Linear(8, 10)

    def forward(self, x):
        a, b, c, d, e, f = self.convs
        x = F.relu(a(x))
        x = F.relu6(b(x))
        x = F.gelu(c(x))
        x = d(x)
        x = x * torch.sigmoid(x)
        x = F.elu(e(x)).clamp(min=-0.5)
        x = F.softplus(f(x))
        return F.log_softmax(self.fc(F.avg_pool2d(x, x.size()[2:])[:, :, 0, 0]), dim=1)


class HardSwish(nn.Module):
    def forward(self, x):
        return x * F.relu6(x + 3, inplace=True) / 6


class ModuleActivations(nn.Module):
    """Every activation a module; hard-swish from ReLU6 and a division."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            *conv_bn(3, 8, 3, 2),
            HardSwish(),
            *conv_bn(8, 8, 3, groups=8),
            nn.Hardswish(),
            *conv_bn(8, 8, 1),
            nn.PReLU(8),
            *conv_bn(8, 8, 1),
            nn.GELU(),
        )
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10))

    def forward(self, x):
        return self.head(self.layers(x))


class Attention(nn.Module):
    def __init__(self, dim, n_heads):
        super().__init__()
        self.n_heads, self.scale = n_heads, (dim // n_heads) ** -0.5
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x):
        b, n, c = x.shape
        qkv = self.qkv(x).reshape(b, n, 3, self.n_heads, c // self.n_heads).permute(2, 0, 3, 1, 4)
        q, k, v = qkv.unbind(0)
        attention = ((q @ k.transpose(-2, -1)) * self.scale).softmax(dim=-1)
        return self.proj((attention @ v).transpose(1, 2).reshape(b, n, c))


class Transformer(nn.Module):
    def __init__(self):
        super().__init__()
        self.patch_embed = nn.Conv2d(3, 8, 4, 4)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, 8))
        self.pos_embed = nn.Parameter(torch.zeros(1, 5, 8))
        self.norm1, self.norm2 = nn.LayerNorm(8), nn.LayerNorm(8)
        self.attn = Attention(8, 2)
        self.mlp = nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 8))
        self.head = nn.Linear(8, 10)

    def forward(self, x):
        x = self.patch_embed(x).flatten(2).transpose(1, 2)
        x = torch.cat((self.cls_token.expand(x.shape[0], -1, -1), x), dim=1) + self.pos_embed
        x = x + self.attn(self.norm1(x))
        x = x + self.mlp(self.norm2(x))
        return self.head(x[:, 0])


class MaskedConv2d(nn.Conv2d):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.register_buffer("mask", torch.ones_like(self.weight))
        self.mask.view(-1)[::3] = 0

    def forward(self, x):
        return F.conv2d(x, self.weight * self.mask, self.bias, self.stride, self.padding)


class StandardizedConv2d(nn.Conv2d):
    def forward(self, x):
        weight = self.weight
        weight = weight - weight.mean((1, 2, 3), keepdim=True)
        weight = weight / (weight.flatten(1).std(1).view(-1, 1, 1, 1) + 1e-5)
        return F.conv2d(x, weight, self.bias, self.stride, self.padding)


class OwnWeight(nn.Module):
    def __init__(self, inputs, outputs):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs) / inputs)

    def forward(self, x):
        return F.linear(x, self.weight.sign() * self.weight.abs().mean())


class WeightFunctions(nn.Module):
    """Weights that are computed in the forward."""

    def __init__(self):
        super().__init__()
        self.masked = MaskedConv2d(3, 8, 3, padding=1)
        self.standardized = StandardizedConv2d(8, 8, 3, stride=2, padding=1)
        self.fc = OwnWeight(8, 10)

    def forward(self, x):
        x = F.relu(self.standardized(F.relu(self.masked(x))))
        return self.fc(x.mean((2, 3)))


class UpAndDown(nn.Module):
    """Interpolation, padding and a gate across resolutions."""

    def __init__(self):
        super().__init__()
        self.down = nn.Sequential(nn.ZeroPad2d((0, 1, 0, 1)), nn.Conv2d(3, 8, 3, 2))
        self.deep = conv_bn(8, 8, 3, 2)
        self.wide = nn.Conv2d(3, 8, 3, padding=2, dilation=2)
        self.fc = nn.Linear(8, 10)

    def forward(self, x):
        low = F.relu(self.deep(F.relu(self.down(x))))
        up = F.interpolate(low, scale_factor=4, mode="nearest")
        x = self.wide(x) * torch.tanh(up)
        return self.fc(F.pad(x, (1, 1)).mean((2, 3)))


IMAGE = (3, 8, 8)
ZOO = {
    "residual": Residual,
    "pre-activation": PreActivation,
    "grouped": Grouped,
    "inverted": Inverted,
    "squeeze-excitation": SqueezeExcitationNet,
    "stochastic-depth": StochasticDepth,
    "shake-shake": ShakeShake,
    "dense": Dense,
    "shuffle": Shuffle,
    "ghost": Ghost,
    "cross-stage": CrossStage,
    "inception": InceptionNet,
    "dual-path": DualPath,
    "plain": Plain,
    "mlp": Mlp,
    "functional": FunctionalActivations,
    "modules": ModuleActivations,
    "transformer": Transformer,
    "weight-functions": WeightFunctions,
    "up-and-down": UpAndDown,
}


def make(name):
    """Return the network called `name` for images of shape `IMAGE`, 10 classes."""
    with fork_rng(0):
        network = ZOO[name]()
        for part in network.modules():
            if isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d):
                nn.init.uniform_(part.weight, 0.5, 1.5)
                nn.init.normal_(part.bias, std=0.1)
                part.running_mean.normal_(std=0.1)
                part.running_var.uniform_(0.5, 1.5)
    return network.eval()
