# SPDX-License-Identifier: Apache-2.0
"""Small networks of many kinds, written as people write them: those that split and join."""

import torch
import torch.nn.functional as F
from tests.networks.zoo_residual import conv_bn
from torch import nn


class DenseLayer(nn.Module):
    def __init__(self, inputs, growth):
        super().__init__()
        self.norm = nn.BatchNorm2d(inputs)
        self.conv = nn.Conv2d(inputs, growth, 3, padding=1, bias=False)

    def forward(self, x):
        return torch.cat([x, self.conv(F.relu(self.norm(x)))], 1)


class Dense(nn.Module):
    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1, bias=False),
            DenseLayer(8, 4),
            DenseLayer(12, 4),
            nn.BatchNorm2d(16),
            nn.ReLU(inplace=True),
            nn.Conv2d(16, 8, 1, bias=False),
            nn.AvgPool2d(2, 2),
            DenseLayer(8, 4),
        )
        self.classifier = nn.Linear(12, 10)

    def forward(self, x):
        features = F.relu(self.features(x), inplace=True)
        return self.classifier(F.adaptive_avg_pool2d(features, (1, 1)).flatten(1))


def channel_shuffle(x, groups):
    n, c, h, w = x.shape
    return x.view(n, groups, c // groups, h, w).transpose(1, 2).contiguous().view(n, -1, h, w)


class ShuffleUnit(nn.Module):
    def __init__(self, channels):
        super().__init__()
        half = channels // 2
        self.branch = nn.Sequential(
            *conv_bn(half, half, 1),
            nn.ReLU(inplace=True),
            *conv_bn(half, half, 3, groups=half),
            *conv_bn(half, half, 1),
            nn.ReLU(inplace=True),
        )

    def forward(self, x):
        x1, x2 = x.chunk(2, dim=1)
        return channel_shuffle(torch.cat((x1, self.branch(x2)), dim=1), 2)


class Shuffle(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(*conv_bn(3, 8, 3, 2), nn.ReLU(inplace=True))
        self.stage = nn.Sequential(ShuffleUnit(8), ShuffleUnit(8))
        self.fc = nn.Linear(8, 10)

    def forward(self, x):
        return self.fc(self.stage(self.stem(x)).mean([2, 3]))


class GhostModule(nn.Module):
    def __init__(self, inputs, outputs):
        super().__init__()
        self.outputs = outputs
        half = (outputs + 1) // 2
        self.primary_conv = nn.Sequential(*conv_bn(inputs, half, 1), nn.ReLU(inplace=True))
        self.cheap_operation = nn.Sequential(*conv_bn(half, half, 3, groups=half), nn.ReLU())

    def forward(self, x):
        x1 = self.primary_conv(x)
        x2 = self.cheap_operation(x1)
        return torch.cat([x1, x2], dim=1)[:, : self.outputs, :, :]


class Ghost(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = conv_bn(3, 8, 3, 2)
        self.ghosts = nn.ModuleList([GhostModule(8, 11), GhostModule(11, 12)])
        self.classifier = nn.Linear(12, 10)

    def forward(self, x):
        x = self.stem(x)
        for ghost in self.ghosts:
            x = ghost(x)
        x = F.adaptive_avg_pool2d(x, 1)
        return self.classifier(x.view(x.size(0), -1))


class CrossStage(nn.Module):
    """Half of the channels pass by."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(*conv_bn(3, 12), nn.LeakyReLU(0.1))
        self.inner = nn.ModuleList([conv_bn(6, 6), conv_bn(6, 6)])
        self.fuse = nn.Sequential(*conv_bn(24, 8, 1), nn.Mish())
        self.fc = nn.Linear(8, 10)

    def forward(self, x):
        x = self.stem(x)
        parts = list(torch.split(x, 6, dim=1))
        for layer in self.inner:
            parts.append(F.leaky_relu(layer(parts[-1]), 0.1))
        x = self.fuse(torch.cat(parts, 1))
        return self.fc(x.amax((2, 3)))


class Inception(nn.Module):
    def __init__(self, inputs):
        super().__init__()
        self.branch1 = nn.Sequential(*conv_bn(inputs, 4, 1), nn.ReLU())
        self.branch3 = nn.Sequential(*conv_bn(inputs, 4, 1), nn.ReLU(), *conv_bn(4, 6), nn.ReLU())
        self.branch_pool = nn.Sequential(nn.MaxPool2d(3, 1, 1), *conv_bn(inputs, 2, 1), nn.ReLU())

    def forward(self, x):
        return torch.cat([self.branch1(x), self.branch3(x), self.branch_pool(x)], 1)


class InceptionNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 8, 3, 2), nn.ReLU(), Inception(8), Inception(12), nn.AdaptiveAvgPool2d(1)
        )
        self.dropout = nn.Dropout(0.4)
        self.fc = nn.Linear(12, 10)

    def forward(self, x):
        return self.fc(self.dropout(torch.flatten(self.features(x), 1)))


class DualPathBlock(nn.Module):
    def __init__(self, inputs, residual, dense):
        super().__init__()
        self.residual = residual
        self.conv1 = conv_bn(inputs, 8, 1)
        self.conv2 = conv_bn(8, 8, 3, groups=2)
        self.conv3 = conv_bn(8, residual + dense, 1)

    def forward(self, x):
        y = self.conv3(F.relu(self.conv2(F.relu(self.conv1(x)))))
        d = self.residual
        return F.relu(torch.cat([x[:, :d] + y[:, :d], x[:, d:], y[:, d:]], 1))


class DualPath(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = conv_bn(3, 12)
        self.layers = nn.Sequential(DualPathBlock(12, 8, 4), DualPathBlock(16, 8, 4))
        self.linear = nn.Linear(20, 10)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.stem(x)), 2)
        return self.linear(self.layers(x).mean((2, 3)))
