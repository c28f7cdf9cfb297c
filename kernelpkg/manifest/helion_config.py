"""The fields of a Helion config: which there are, and what Helion takes though it should not."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, Final, TypeGuard

from kernelpkg.files import Files
from kernelpkg.manifest.spec import KernelSpec

Config = Mapping[str, Any]
"""A Helion config, as the keywords of `helion.Config`."""

POSITIONAL: Final = frozenset({
    "indexing", "atomic_indexing", "load_eviction_policies", "load_cache_modifiers",
    "store_cache_modifiers", "pallas_load_buffer_count",
})  # fmt: skip
"""The fields with one entry per load, store or atomic of a kernel, in helion 1.4.0 and 1.5.1.

Their entries shift when an optional tensor is None, which Helion accepts in silence.
"""

# Parameters of helion.Config in its own order, which is the one it writes them in; in
# helion/runtime/config.py. 1.4.0 has those that are not named cute_*, and of the others not
# cross_loop_pipeline, host_tensor_descriptors and reduction_fusion.
_PARAMETERS: Final = (
    "block_sizes", "num_threads", "loop_orders", "flatten_loops", "l2_groupings",
    "reduction_loops", "range_unroll_factors", "range_warp_specializes", "range_num_stages",
    "range_multi_buffers", "range_flattens", "static_ranges", "pallas_load_buffer_count",
    "load_eviction_policies", "load_cache_modifiers", "store_cache_modifiers",
    "cute_async_load_stages", "cute_async_load_lookahead", "cute_async_load_group_rows",
    "cute_async_load_cache", "cute_async_store_policy", "cute_bf16x2_recurrence",
    "cute_signed_bitfield_bf16", "cute_proven_bounds", "cute_affine_scan_schedule",
    "cute_rng_packet", "cute_independent_reduction", "cute_replicated_reduction",
    "cute_vector_packet_unroll", "cute_vloop_sink", "cute_lane_unroll", "cute_pdl",
    "cute_warp_aggregated_atomics", "cute_packet_prefetch", "cute_reduction_pipeline_depth",
    "cute_host_paired_sum", "num_warps", "num_stages", "indexing", "atomic_indexing", "pid_type",
    "cross_loop_pipeline", "num_sm_multiplier", "maxnreg", "host_tensor_descriptors",
    "advanced_controls_file", "epilogue_subtile", "xcd_remap", "reduction_fusion",
)  # fmt: skip

# Further keywords that both versions take on AMD GPUs, in helion/autotuner/config_spec.py; Helion
# writes them behind its parameters.
_AMD: Final = ("matrix_instr_nonkdim", "waves_per_eu")

ORDER: Final = {name: place for place, name in enumerate((*_PARAMETERS, *_AMD))}
"""The place of each field in a config that Helion writes."""

FIELDS: Final = frozenset(ORDER)
"""The fields that a config may have."""

Tunables = Callable[[], Collection[str]]
"""Returns the fields that a kernel registers; asked where one of a config is not in `FIELDS`."""

_PID_TYPES = ("flat", "xyz", "persistent_blocked", "persistent_interleaved")

LIMITED: Final = frozenset(
    {"num_warps", "num_stages", "block_sizes", "load_eviction_policies", "pid_type"}
)
"""The fields that `wanted_instead` looks at."""


def without_positional(config: Config) -> dict[str, Any]:
    """Return a config that may be used for another variant than the one it was tuned for."""
    return {name: value for name, value in config.items() if name not in POSITIONAL}


def tunables_of(spec: KernelSpec, files: Files | None = None) -> tuple[str, ...]:
    """Return the fields that the file of a kernel registers with `hl.register_tunable`."""
    return tunables_in(Path(spec.directory, spec.source.file), files)


def tunables_in(path: Path, files: Files | None = None) -> tuple[str, ...]:
    """Return the fields that a file registers; none where it cannot be read, as its checks say."""
    try:
        return _registered((files or Files()).read(path))
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
        return ()


def function_tunables(function: Callable[..., Any]) -> tuple[str, ...]:
    """Return the fields that a function registers itself; none where it has no source."""
    try:
        return _registered(textwrap.dedent(inspect.getsource(function)))
    except (OSError, TypeError, SyntaxError):
        return ()


def _registered(source: str | bytes) -> tuple[str, ...]:
    """Return the names in a source that `register_tunable` is called with, by themselves or not."""
    tree = ast.parse(source)
    known: dict[str, Any] = {}
    for node in tree.body:
        match node:
            case ast.Assign(targets=[ast.Name(id=name)], value=ast.Constant(value=value)):
                known[name] = value
    found: dict[str, None] = {}
    for part in ast.walk(tree):
        match part:
            case ast.Call(func=ast.Attribute(attr=called) | ast.Name(id=called), args=[first, *_]):
                named = known.get(first.id) if isinstance(first, ast.Name) else None
                text = first.value if isinstance(first, ast.Constant) else named
                if called == "register_tunable" and isinstance(text, str):
                    found[text] = None
    return tuple(found)


def wanted_instead(name: str, value: object) -> str | None:
    """Return what a field must be, where its value is none that a kernel can run with.

    Neither `normalize` nor code generation of helion 1.4.0 and 1.5.1 refuses these.
    """
    if name == "num_warps" and not (_power_of_two(value) and value <= 32):
        return "a power of two from 1 to 32"
    if name == "num_stages" and not (type(value) is int and value >= 1):
        return "a whole number, 1 or more"
    if name == "block_sizes" and not (isinstance(value, list) and all(map(_power_of_two, value))):
        return "a list of powers of two"
    if name == "load_eviction_policies":
        policies = value if isinstance(value, list) else [value]
        if any(policy not in ("", "first", "last") for policy in policies):
            return "made of '', 'first' and 'last'"
    if name == "pid_type" and value not in _PID_TYPES:
        return f"one of {', '.join(map(repr, _PID_TYPES))}"
    return None


def _power_of_two(value: object) -> TypeGuard[int]:
    return type(value) is int and value > 0 and value & (value - 1) == 0
