"""Engine tests run on one thread: bits depend on the number, and the workers of a test run share the cores.

On a GPU (MGD_TEST_DEVICE=cuda) the kernels are the deterministic ones of a real run: others fail the guard, rightly.
"""

import os

os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # before cuBLAS's first call

import torch

torch.set_num_threads(1)
if os.environ.get("MGD_TEST_DEVICE", "cpu") != "cpu":
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False
