# SPDX-License-Identifier: Apache-2.0
"""Small networks of many kinds, written as people write them: those with shortcuts."""

import torch
import torch.nn.functional as F
from torch import nn


def conv_bn(inputs, outputs, kernel=3, stride=1, groups=1):
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outputs),
    )


class BasicBlock(nn.Module):
    def __init__(self, inputs, outputs, stride=1):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU(inplace=True)
        same = stride == 1 and inputs == outputs
        self.downsample = None if same else conv_bn(inputs, outputs, 1, stride)

    def forward(self, x):
        identity = x if self.downsample is None else self.downsample(x)
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        out += identity
        return self.relu(out)


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(8)
        self.layer1 = nn.Sequential(BasicBlock(8, 8), BasicBlock(8, 8))
        self.layer2 = nn.Sequential(BasicBlock(8, 12, 2), BasicBlock(12, 12))
        self.fc = nn.Linear(12, 10)

    def forward(self, x):
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.layer2(self.layer1(x))
        x = F.adaptive_avg_pool2d(x, (1, 1))
        return self.fc(torch.flatten(x, 1))


class PreActivationBlock(nn.Module):
    def __init__(self, inputs, outputs, stride=1):
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Conv2d(inputs, outputs, 1, stride, bias=False)

    def forward(self, x):
        out = F.relu(self.bn1(x))
        shortcut = self.shortcut(out) if hasattr(self, "shortcut") else x
        out = self.conv1(out)
        out = self.conv2(F.relu(self.bn2(out)))
        return out + shortcut


class PreActivation(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, 1, 1, bias=False)
        self.blocks = nn.ModuleList([PreActivationBlock(8, 8), PreActivationBlock(8, 12, 2)])
        self.bn = nn.BatchNorm2d(12)
        self.output = nn.Linear(12, 10)

    def forward(self, x):
        x = self.conv(x)
        for block in self.blocks:
            x = block(x)
        x = F.relu(self.bn(x))
        return self.output(F.avg_pool2d(x, 4).view(x.size(0), -1))


class ResNextBlock(nn.Module):
    def __init__(self, channels, width, groups):
        super().__init__()
        self.reduce = conv_bn(channels, width, 1)
        self.grouped = conv_bn(width, width, 3, groups=groups)
        self.expand = conv_bn(width, channels, 1)

    def forward(self, x):
        out = self.grouped(self.reduce(x).relu()).relu()
        return torch.relu_(x + self.expand(out))


class Grouped(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = conv_bn(3, 16, 3, 2)
        self.body = nn.Sequential(ResNextBlock(16, 8, 4), nn.MaxPool2d(2), ResNextBlock(16, 8, 2))
        self.fc = nn.Linear(16, 10)

    def forward(self, x):
        return self.fc(self.body(self.stem(x).relu_()).mean([2, 3]))


class InvertedResidual(nn.Module):
    def __init__(self, inputs, outputs, stride, expansion):
        super().__init__()
        hidden = inputs * expansion
        layers = [] if expansion == 1 else [*conv_bn(inputs, hidden, 1), nn.ReLU6(inplace=True)]
        layers += [*conv_bn(hidden, hidden, 3, stride, hidden), nn.ReLU6(inplace=True)]
        self.conv = nn.Sequential(*layers, *conv_bn(hidden, outputs, 1))
        self.use_res_connect = stride == 1 and inputs == outputs

    def forward(self, x):
        return x + self.conv(x) if self.use_res_connect else self.conv(x)


class Inverted(nn.Module):
    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(
            nn.Sequential(*conv_bn(3, 8, 3, 2), nn.ReLU6(inplace=True)),
            InvertedResidual(8, 8, 1, 1),
            InvertedResidual(8, 12, 2, 3),
            InvertedResidual(12, 12, 1, 3),
            nn.Sequential(*conv_bn(12, 24, 1), nn.ReLU6(inplace=True)),
        )
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(24, 10))

    def forward(self, x):
        x = self.features(x).mean(3).mean(2)
        return self.classifier(x)


class SqueezeExcitation(nn.Module):
    def __init__(self, channels, reduced):
        super().__init__()
        self.fc1 = nn.Conv2d(channels, reduced, 1)
        self.fc2 = nn.Conv2d(reduced, channels, 1)

    def forward(self, x):
        gate = F.adaptive_avg_pool2d(x, 1)
        gate = self.fc2(F.silu(self.fc1(gate)))
        return x * gate.sigmoid()


class LinearGate(nn.Module):
    def __init__(self, channels, reduced):
        super().__init__()
        self.fc = nn.Sequential(
            nn.Linear(channels, reduced),
            nn.ReLU(inplace=True),
            nn.Linear(reduced, channels),
            nn.Sigmoid(),
        )

    def forward(self, x):
        n, c, _, _ = x.size()
        y = self.fc(x.mean((2, 3)).view(n, c)).view(n, c, 1, 1)
        return x * y.expand_as(x)


class SqueezeExcitationNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(*conv_bn(3, 8), nn.SiLU())
        self.block1 = nn.Sequential(*conv_bn(8, 8, groups=8), SqueezeExcitation(8, 2))
        self.block2 = nn.Sequential(*conv_bn(8, 8), LinearGate(8, 4))
        self.head = nn.Linear(8, 10)

    def forward(self, x):
        x = self.stem(x)
        x = x + self.block1(x)
        x = F.silu(x + self.block2(x))
        return self.head(x.mean((-2, -1)))


class StochasticBlock(nn.Module):
    def __init__(self, channels, survival):
        super().__init__()
        self.survival = survival
        self.conv1, self.conv2 = conv_bn(channels, channels), conv_bn(channels, channels)

    def forward(self, x):
        if self.training and torch.rand(()) > self.survival:
            return x
        out = self.conv2(F.relu(self.conv1(x)))
        if not self.training:
            out = out * self.survival
        return F.relu(x + out)


class StochasticDepth(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = conv_bn(3, 8, 3, 2)
        self.blocks = nn.ModuleList(StochasticBlock(8, 1 - 0.1 * i) for i in range(3))
        self.fc = nn.Linear(8, 10)

    def forward(self, x):
        x = F.relu(self.stem(x), inplace=True)
        for block in self.blocks:
            x = block(x)
        return self.fc(F.adaptive_avg_pool2d(x, 1).squeeze(-1).squeeze(-1))


class ShakeBlock(nn.Module):
    """Two branches, weighed at random in training and equally otherwise."""

    def __init__(self, channels):
        super().__init__()
        self.branch1 = nn.Sequential(nn.ReLU(), *conv_bn(channels, channels))
        self.branch2 = nn.Sequential(nn.ReLU(), *conv_bn(channels, channels))

    def forward(self, x):
        alpha = torch.rand(x.size(0), 1, 1, 1) if self.training else 0.5
        return x + alpha * self.branch1(x) + (1 - alpha) * self.branch2(x)


class ShakeShake(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = conv_bn(3, 8)
        self.layers = nn.Sequential(ShakeBlock(8), nn.AvgPool2d(2), ShakeBlock(8))
        self.fc = nn.Linear(8, 10)

    def forward(self, x):
        return self.fc(F.relu(self.layers(self.stem(x))).mean((2, 3)))
