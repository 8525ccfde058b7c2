# SPDX-License-Identifier: Apache-2.0
"""A record of a forward pass holds every call, what it read and where it was written."""

import inspect

import pytest
import torch
import torch.nn.functional as F
from tests.networks.zoo import IMAGE, ZOO, make
from torch import nn

from bitscout.errors import UnsupportedError
from bitscout.networks.calls import CHANGED_THROUGH_VIEW
from bitscout.networks.record_calls import record_calls


class Function(nn.Module):
    def __init__(self, function, **tensors):
        super().__init__()
        self.function = function
        for name, tensor in tensors.items():
            if isinstance(tensor, nn.Parameter):
                self.register_parameter(name, tensor)
            else:
                self.register_buffer(name, tensor)

    def forward(self, x):
        return self.function(self, x)


def functions(function, shape=(4, 4, 4), **tensors):
    """Return the names of the functions that are called."""
    return [call.function for call in record_calls(Function(function, **tensors), shape).calls]


@pytest.mark.parametrize("name", ZOO)
def test_every_result_is_made_by_a_call_that_comes_before_its_readers(name):
    record = record_calls(make(name), IMAGE)
    made = {record.input.index}
    for call in record.calls:
        for value in call.results_read:
            assert value.index in made
        assert call.is_result == any(value.is_result for value in call.reads)
        made |= {value.index for value in call.writes if value.is_result}
    assert record.output.index in made


@pytest.mark.parametrize("name", ZOO)
def test_every_convolution_and_linear_module_has_its_call_and_shapes(name):
    network, seen = make(name), {}
    for path, part in network.named_modules():
        if isinstance(part, nn.Conv2d | nn.Linear):
            part.register_forward_hook(
                lambda _, args, y, path=path: seen.__setitem__(
                    path, (tuple(args[0].shape), tuple(y.shape))
                )
            )
    record = record_calls(network, IMAGE)
    found = {
        call.path: (call.results_read[0].shape, call.writes[0].shape)
        for call in record.calls
        if call.function in ("conv2d", "linear")
    }
    assert seen.items() <= found.items()
    assert set(found) - set(seen) <= {"fc"}  # A linear function of its own in weight-functions.


@pytest.mark.parametrize(
    "function",
    [
        lambda s, x: x + 1,
        lambda s, x: 1 + x,
        lambda s, x: x.add(1),
        lambda s, x: torch.add(x, 1),
        lambda s, x: x.add_(1),
        lambda s, x: x.__iadd__(1),
    ],
)
def test_a_function_has_one_name_for_every_way_to_write_it(function):
    assert functions(function) == ["add"]


def test_operators_with_exchanged_operands_have_names_of_their_own():
    assert functions(lambda s, x: 1 - 2 / x) == ["rdiv", "rsub"]
    assert functions(lambda s, x: x.mT / 2) == [".mT", "div"]


def test_what_does_nothing_is_not_there():
    def forward(s, x):
        x = F.dropout(x, 0.5, s.training).contiguous().to(torch.float32)
        return x.view(x.size(0), *x.shape[1:]) if x.dim() < 4 else x

    assert functions(forward) == []


def test_results_weights_and_constants_are_told_apart():
    def forward(s, x):
        kernel = s.weight * s.mask
        constant = torch.ones(1) * 2
        return F.conv2d(x, kernel) * constant

    weight, mask = nn.Parameter(torch.ones(4, 4, 1, 1)), torch.ones(4, 4, 1, 1)
    record = record_calls(Function(forward, weight=weight, mask=mask), (4, 4, 4))
    origins = {call.function: call.writes[0].origin for call in record.calls[:4]}
    assert origins == {"mul": "constant", "ones": "constant", "conv2d": "input"}
    product = record.calls[0].writes[0]
    assert [(v.name, v.is_parameter) for v in record.weights_of(product)] == [
        ("weight", True),
        ("mask", False),
    ]
    assert product.origin == "weights"
    assert record.writer(product) is record.calls[0]
    assert [call.function for call in record.readers(product)] == ["conv2d"]


def test_a_tensor_changed_in_place_is_another_value():
    record = record_calls(Function(lambda s, x: (x.relu_(), x + 1)[1]), (4, 4, 4))
    relu, add = record.calls
    assert relu.is_in_place and not add.is_in_place
    assert add.reads[0] == relu.writes[0] != record.input


def test_an_assignment_to_a_part_makes_a_new_value_of_the_whole():
    def forward(s, x):
        x[:, 0] = x[:, 1]
        return x * 2

    record = record_calls(Function(forward), (4, 4, 4))
    read, write, double = record.calls
    assert (write.function, write.reads) == ("setitem", (record.input, read.writes[0]))
    assert double.reads == write.writes


def test_a_change_through_a_view_reaches_the_whole_and_other_views():
    def forward(s, x):
        y = x * 1
        half, flat = y[:, :2], y.flatten(1)
        half.mul_(2)
        return flat + y.flatten(1)

    record = record_calls(Function(forward), (4, 4, 4))
    changed = [call for call in record.calls if call.function == CHANGED_THROUGH_VIEW]
    written = next(call.writes[0] for call in record.calls if call.is_in_place)
    assert [call.reads[1] for call in changed] == [written, written]
    flat = next(call for call in record.calls if call.function == "flatten").writes[0]
    assert record.calls[-1].function == "add"
    assert flat not in record.calls[-1].reads


def test_lists_and_tuples_as_indices_stay_what_they_are():
    calls = record_calls(Function(lambda s, x: x[[0, 1]] + x[0, 1]), (4, 4, 4)).calls
    assert [call.args[1] for call in calls[:2]] == [[0, 1], (0, 1)]


def test_named_arguments_are_kept_and_read():
    def forward(s, x):
        return torch.add(input=x, other=x * 2, alpha=3)

    mul, add = record_calls(Function(forward), (4, 4, 4)).calls
    assert add.reads[1:] == mul.writes
    assert add.argument(1, "other") == mul.writes[0]
    assert (add.argument(2, "alpha"), add.argument(3, "out", "none")) == (3, "none")


def test_functions_with_several_results_have_them_all():
    record = record_calls(Function(lambda s, x: x.chunk(2, 1)[1] * 1), (4, 4, 4))
    chunk, mul = record.calls
    assert [value.shape for value in chunk.writes] == [(2, 2, 4, 4)] * 2
    assert mul.reads == chunk.writes[1:]


def test_calls_know_their_line_and_module():
    def forward(s, x):
        return x.relu()  # This line.

    (call,) = record_calls(Function(forward), (4, 4, 4)).calls
    lines, start = inspect.getsourcelines(forward)
    assert call.line == f"{__file__}:{start + 1}"
    assert "This line" in lines[1]
    assert call.where.startswith("the Function (")
    network = nn.Sequential(nn.ReLU())
    assert record_calls(network, (4,)).calls[0].where == "ReLU '0'"


class OwnFunction(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x * torch.sigmoid(x)


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")
def test_autograd_functions_and_scripts_are_looked_into():
    scripted = torch.jit.script(gate)
    assert functions(lambda s, x: OwnFunction.apply(x)) == ["sigmoid", "mul"]
    assert functions(lambda s, x: scripted(x)) == ["sigmoid", "mul"]


def gate(x: torch.Tensor) -> torch.Tensor:
    return x * x.sigmoid()


def test_decisions_made_of_activations_are_noted():
    def forward(s, x):
        return -x if x.sum() > 0 else x * x.max().item()

    record = record_calls(Function(forward), (4, 4, 4))
    assert len(record.number_reads) >= 1
    assert all(line.startswith(__file__) for line in record.number_reads)
    assert not record_calls(Function(lambda s, x: x * x.shape[1]), (4, 4, 4)).number_reads


def test_a_failure_names_the_innermost_line_of_the_users_code():
    class Deep(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(7, 2)

        def forward(self, x):
            return self.fc(x)

    network = nn.Sequential(Deep())
    line = inspect.getsourcelines(Deep.forward)[1] + 1
    with pytest.raises(
        UnsupportedError, match=rf"input of 4: in Linear '0.fc' \(.*test_record_calls.py:{line}\)"
    ):
        record_calls(network, (4,))
    assert not any(part._forward_hooks for part in network.modules())


def test_recording_changes_nothing():
    network = make("squeeze-excitation").train()
    state = {key: tensor.clone() for key, tensor in network.state_dict().items()}
    record_calls(network, IMAGE)
    assert all(part.training for part in network.modules())
    for key, tensor in network.state_dict().items():
        assert torch.equal(tensor, state[key])
