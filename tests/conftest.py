"""Settings for all tests: reproducible examples, no deadlines on a shared machine."""

import os

import torch
from hypothesis import HealthCheck, settings

settings.register_profile(
    "bitscout",
    deadline=None,
    derandomize=True,
    max_examples=int(os.environ.get("BITSCOUT_HYPOTHESIS_EXAMPLES", "100")),
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("bitscout")
torch.set_num_threads(min(2, os.cpu_count() or 1))
