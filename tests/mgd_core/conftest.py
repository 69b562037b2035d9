"""Engine tests run on one thread: bits depend on the number, and the workers of a test run share the cores."""

import torch

torch.set_num_threads(1)
