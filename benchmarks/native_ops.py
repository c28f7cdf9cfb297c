"""Stand-ins for the native ops of vLLM 0.33.0 where its compiled library is not: real schemas.

They are defined in `_C`, and implemented by the references of the first pack's kernels, or by
nothing at all where only the way to them is of interest.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import torch
from torch.library import Library

SCHEMAS = {
    "per_token_group_fp8_quant": "(Tensor input, Tensor! output_q, Tensor! output_s, "
    "int group_size, float eps, float fp8_min, float fp8_max, bool scale_ue8m0, "
    "bool dummy_is_scale_transposed, bool dummy_is_tma_aligned ) -> ()",
    "dynamic_per_token_scaled_fp8_quant": "(Tensor! result, Tensor input, Tensor! scale, "
    "Tensor? scale_ub) -> ()",
    "rms_norm_dynamic_per_token_quant": "(Tensor! result, Tensor input, Tensor weight, "
    "Tensor! scale, float epsilon, Tensor? scale_ub, Tensor!? residual) -> ()",
    "rms_norm_per_block_quant": "(Tensor! result, Tensor input, Tensor weight, Tensor! scale, "
    "float epsilon, Tensor? scale_ub, Tensor!? residual, int group_size, "
    "bool is_scale_transposed) -> ()",
    "silu_and_mul_per_block_quant": "(Tensor! out, Tensor input, Tensor! scales, int group_size, "
    "Tensor? scale_ub=None, bool is_scale_transposed=False) -> ()",
    "fused_qk_norm_rope": "(Tensor! qkv, int num_heads_q, int num_heads_k, int num_heads_v, "
    "int head_dim, float eps, Tensor q_weight, Tensor k_weight, Tensor cos_sin_cache, "
    "bool is_neox, Tensor position_ids, int forced_token_heads_per_warp=-1) -> ()",
}
"""As they stand in _C_stable_libtorch.abi3.so of vLLM 0.33.0, by the names of the ops."""


def reference(root: Path, name: str) -> Callable[..., Any]:
    """Return the reference of a kernel of a pack."""
    path = root / "kernels" / name / "host.py"
    spec = spec_from_file_location(f"native_ops_{name}", path)
    assert spec is not None and spec.loader is not None
    module = sys.modules[spec.name] = module_from_spec(spec)
    spec.loader.exec_module(module)
    found: Callable[..., Any] = module.reference
    return found


def nothing(*_: Any) -> None:
    """Do nothing, as an op that costs nothing."""


class NativeOps:
    """Ops of `_C`, for as long as this is not closed; `calls` names each that was called.

    `answer` makes the implementation of an op by its name.
    """

    def __init__(
        self,
        answer: Callable[[str], Callable[..., Any]],
        *,
        names: Iterable[str] = SCHEMAS,
        key: str = "CPU",
    ) -> None:
        self.calls: list[str] = []
        self._library = Library("_C", "FRAGMENT")  # closed below
        for name in names:
            self._library.define(name + SCHEMAS[name])
            self._library.impl(name, self._recorded(name, answer(name)), key)
            torch.library.register_fake(f"_C::{name}", nothing, lib=self._library)

    def _recorded(self, name: str, answer: Callable[..., Any]) -> Callable[..., Any]:
        if answer is nothing:
            return nothing
        schema = None

        def call(*args: Any) -> None:
            nonlocal schema
            schema = schema or getattr(torch.ops._C, name).default._schema
            rest = schema.arguments[len(args) :]  # PyTorch leaves out what equals its default
            self.calls.append(name)
            answer(*args, *(arg.default_value for arg in rest))

        return call

    def close(self) -> None:
        """Take the ops back."""
        self._library._destroy()
