# SPDX-License-Identifier: Apache-2.0
import pytest
import torch

from bitscout.errors import ConfigError
from bitscout.training import fork_rng, torch_generator


def test_same_seed_gives_the_same_stream_and_another_seed_another():
    draws = [torch.rand(4, generator=torch_generator(seed)).tolist() for seed in (5, 5, 6)]
    assert draws[0] == draws[1] != draws[2]


def test_a_generator_leaves_the_global_state_alone():
    before = torch.random.get_rng_state()
    torch.rand(4, generator=torch_generator(1))
    assert torch.equal(torch.random.get_rng_state(), before)


def test_fork_seeds_inside_and_restores_outside():
    before = torch.random.get_rng_state()
    with fork_rng(3):
        first = torch.rand(4)
    with fork_rng(3):
        second = torch.rand(4)
    assert torch.equal(first, second)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_fork_restores_the_state_after_an_exception():
    before = torch.random.get_rng_state()
    with pytest.raises(KeyboardInterrupt), fork_rng(3):
        raise KeyboardInterrupt
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize("seed", [-1, 2**63])
def test_seeds_out_of_range_are_rejected(seed):
    with pytest.raises(ConfigError, match=rf"`seed` must be in \[0, 2\*\*63 - 1\], got {seed}"):
        torch_generator(seed)
    with pytest.raises(ConfigError, match="`seed` must be"), fork_rng(seed):
        pass
