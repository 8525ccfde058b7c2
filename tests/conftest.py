"""Settings for all tests: reproducible examples, no deadlines on a shared machine, one thread."""

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
# Tiny networks gain nothing from a second thread, and threads that wait for each other on a busy
# machine cost a factor of ten.
torch.set_num_threads(1)
