"""What all tests share: no time limit for an example of a property (the machine may be busy), one thread."""

from __future__ import annotations

import torch
from hypothesis import HealthCheck, settings

settings.register_profile("attnpool", deadline=None, max_examples=30, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("attnpool")
torch.set_num_threads(1)  # small tensors: threads would only wait for each other
