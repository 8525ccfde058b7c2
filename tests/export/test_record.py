"""A recording says what ran, where, and what it read."""

import pytest
import torch
from tests.export.lowered import images_like, quantized
from torch import nn
from torch.nn import functional as F

from bitscout.errors import UnsupportedError
from bitscout.export.record import record
from bitscout.export.recording import Value


class Small(nn.Module):
    def __init__(self, function=F.relu):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.pool = nn.MaxPool2d(2)
        self.function = function

    def forward(self, x):
        return self.pool(self.function(self.conv(x)))


def recorded(function=F.relu, n=2):
    x = images_like((3, 6, 6), n)
    return record(quantized(Small(function), x), x)


def test_quantized_modules_are_one_call_and_functions_another():
    calls = recorded().calls
    assert [(call.function, call.path) for call in calls] == [
        ("", "conv"),
        ("relu", ""),
        ("max_pool2d", "pool"),
    ]
    assert all(call.line.startswith(f"{__file__}:") for call in calls)


def test_every_call_reads_what_the_one_before_made():
    recording = recorded()
    value = recording.input
    for call in recording.calls:
        assert call.args[0] == value
        value = call.result
    assert recording.output == value
    assert value.shape == (4, 2, 2)


def test_a_tensor_changed_in_place_is_another_value():
    first, second, *_ = recorded(lambda x: x.relu_()).calls
    assert isinstance(second.result, Value)
    assert second.result != first.result


def test_what_does_not_come_from_the_input_is_not_recorded():
    def with_constant(x):
        torch.ones(3).add(1)
        return x.clone()

    assert [call.function for call in recorded(with_constant).calls[1:2]] == ["clone"]


def test_shapes_may_be_read():
    def reshaped(x):
        assert (x.dim(), len(x), x.size(0), x.shape[1], x.numel()) == (4, 2, 2, 4, 128)
        assert x.dtype == torch.float32
        return x.clone()

    assert len(recorded(reshaped).calls) == 3


@pytest.mark.parametrize(
    "read",
    [
        lambda x: x.max().item(),
        lambda x: x.tolist(),
        lambda x: bool(x[0, 0, 0, 0]),
        lambda x: int(x.sum()),
        lambda x: x.numpy(),
    ],
)
def test_values_may_not_be_read(read):
    def reading(x):
        read(x)
        return x.clone()

    x = images_like((3, 6, 6), 2)
    module = quantized(Small(), x)
    module.function = reading
    with pytest.raises(UnsupportedError, match="so what the network computes depends on the im"):
        record(module, x)


def test_hooks_are_removed_when_the_network_fails():
    x = images_like((3, 6, 6), 2)
    module = quantized(Small(), x).train()
    with pytest.raises(UnsupportedError, match="does not run"):
        record(module, x[:, :2])
    assert module.training
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in module.modules())


def test_a_written_view_makes_the_other_tensor_unreadable():
    def through_a_view(x):
        x[:, 0].zero_()
        return x.clone()

    with pytest.raises(UnsupportedError, match="changed through a view of it"):
        recorded(through_a_view)
