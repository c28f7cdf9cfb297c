"""Several GPUs in one process; with fewer than two, not collected."""

from __future__ import annotations

import torch

from kernelpkg import get_kernel_by_name
from kernelpkg.bench.reference import check_case
from kernelpkg.manifest.cases import smallest_case
from kernelpkg.packs import find
from kernelpkg.packs.read import kernel_names, read_kernel


def test_ops_run_on_the_gpu_of_their_tensors() -> None:
    """A call with tensors of the second GPU is right while the first one is current."""
    root = find.own_root()
    assert torch.cuda.current_device() == 0
    for name in kernel_names(root):
        spec, kernel = read_kernel(root, name), get_kernel_by_name(f"kernelpkg::{name}")
        assert kernel is not None
        for device in ("cuda:1", "cuda:0", "cuda:1"):
            assert check_case(spec, kernel, smallest_case(spec), device=device) is None
    assert torch.cuda.current_device() == 0
