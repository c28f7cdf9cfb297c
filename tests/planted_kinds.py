"""Faults that are planted into copies of kernels of `tests/packs/kinds`, with what finds each.

`tests/helion/test_planted_kinds.py` holds that a fault is found at its level and at no lower one.
"""

from __future__ import annotations

import ast
import json
import re
import runpy
import shutil
from collections.abc import Iterable
from pathlib import Path

from attrs import frozen

from kernelpkg.packs.sources import source_digest

KINDS = Path(__file__).parent / "packs" / "kinds"
_edit = runpy.run_path(str(Path(__file__).with_name("planted.py")))["edit"]

MANIFEST, KERNEL, HOST, CONFIGS = "kernel.toml", "kernel.py", "host.py", "nvidia_h100.json"

_PACK = """\
edition = 1
[pack]
name = "planted"
version = "1"
namespace = "planted"
license = "Apache-2.0"
kernels = "*"
"""
_TUNED = re.compile(r'\[\[inputs\.grid\]\]\nuse = \["tune", "bench"\]\n(?:[^\[\n].*\n)*')
_BACKWARD = re.compile(r"\[op\.backward\]\n(?:[^\[\n].*\n)*")

Edit = tuple[str, str, str]
"""A file of the kernel, a text that it has, and the text in its place."""


@frozen(kw_only=True)
class PlantedKind:
    """One fault: the lowest level that can find it, the kernel, and the edits that make it.

    It is found in `file`, with a code and a text; without a code, nothing is.
    """

    level: int
    kernel: str
    edits: tuple[Edit, ...]
    file: str = ""
    code: str = ""
    text: str = ""

    def path(self, name: str) -> str:
        """Return where it is found, planted under a name."""
        return f"{'configs' if self.file.endswith('.json') else 'kernels'}/{name}/{self.file}"

    def plant(self, root: Path, name: str) -> None:
        """Write a kernel of this name that has the fault.

        Configs say which source they are of. What runs at level 3 has no configs, and small grids.
        What answers gradients is another kernel, and is not planted beside it.
        """
        directory, configs = root / "kernels" / name, root / "configs" / name
        shutil.copytree(KINDS / "kernels" / self.kernel, directory, ignore=_is_cached)
        manifest = directory / MANIFEST
        text = _BACKWARD.sub("", manifest.read_text())
        if self.level == 3:
            text = _TUNED.sub("", text).replace('use = ["test"]\n', "")
        named = f'name = "{self.kernel}"\n'
        assert named in text
        manifest.write_text(
            text.replace(named, f'name = "{name}"\nsource = "kernel.py:{self.kernel}"\n')
        )
        if self.level < 3:
            shutil.copytree(KINDS / "configs" / self.kernel, configs)
            _edit(CONFIGS, f'"kernel": "{self.kernel}"', f'"kernel": "{name}"')(configs)
        for file, old, new in self.edits:
            _edit(file, old, new)(configs if file == CONFIGS else directory)
        for file in configs.glob("*.json"):
            text = file.read_text()
            if self.code != "KP225":
                digest = source_digest(ast.parse((directory / KERNEL).read_text()))
                text = re.sub(r'"source": "[^"]*"', f'"source": "{digest}"', text)
            file.rename(file.with_stem(json.loads(text)["platform"])).write_text(text)


def _is_cached(_: str, names: list[str]) -> list[str]:
    return [name for name in names if name == "__pycache__"]


def plant(root: Path, names: Iterable[str]) -> None:
    """Write a pack "planted" with kernels that have faults."""
    (root / "manifests").mkdir(parents=True)
    (root / "manifests/planted.toml").write_text(_PACK)
    for name in names:
        PLANTED[name].plant(root, name)


def fault(level: int, kernel: str, found: str, *edits: Edit) -> PlantedKind:
    """Return a fault; `found` is the file, the code and a text of the line that tells it."""
    file, code, text = found.split(" ", 2)
    return PlantedKind(level=level, kernel=kernel, edits=edits, file=file, code=code, text=text)


def manifest(level: int, kernel: str, found: str, *edits: tuple[str, str]) -> PlantedKind:
    """Return a fault of a manifest, which is found there."""
    pairs = ((MANIFEST, old, new) for old, new in edits)
    return fault(level, kernel, f"{MANIFEST} {found}", *pairs)


def config(level: int, kernel: str, found: str, *edits: tuple[str, str]) -> PlantedKind:
    """Return a fault of a config file, which is found there."""
    pairs = ((CONFIGS, old, new) for old, new in edits)
    return fault(level, kernel, f"{CONFIGS} {found}", *pairs)


def runs(kernel: str, found: str, *edits: Edit) -> PlantedKind:
    """Return a fault that only runs can find; it is told of the manifest."""
    return fault(3, kernel, f"{MANIFEST} {found}", *edits)


BY_DTYPE, BY_WIDTH = 'axis = "dtype"\nmatch = "exact"\n', 'axis = "width"\nmatch = "nearest"\n'
A100 = ("NVIDIA H100 80GB HBM3", "NVIDIA A100")
K_OF_Y = (
    (MANIFEST, 'n = "y.shape[2]"', 'n = "y.shape[2]"\nk_of_y = "y.shape[1]"'),
    (MANIFEST, 'shape = ["batch", "k", "n"]', 'shape = ["batch", "k_of_y", "n"]'),
    (MANIFEST, "k = 16", "k = 16, k_of_y = 16"),
)
PLANTED: dict[str, PlantedKind] = {
    # Level 0: files are read, and held against each other.
    "wrong_shape": manifest(
        *(0, "batched_matmul", "KP145 its inputs have n=64; correct the case"),
        ('shape = ["batch", "k", "n"]', 'shape = ["batch", "n", "k"]'),
    ),
    "wrong_dtype": manifest(
        *(0, "gather_rows", "KP145 its inputs have index_dtype=bfloat16; correct the case"),
        ('dtype = "index_dtype"', 'dtype = "dtype"'),
    ),
    "wrong_axis": manifest(
        *(0, "silu_mul", "KP145 its inputs have width=4096; correct the case"),
        ('"input.shape[-1] // 2"', '"input.shape[-1]"'),
    ),
    "axis_beyond": manifest(
        *(0, "gelu", "KP145 axis 'size' = 'input.shape[1]' cannot be read: 'input' has 1 dim"),
        ('"input.numel()"', '"input.shape[1]"'),
    ),
    "wrong_fake_impl": manifest(
        *(0, "layer_norm", "KP102 returns a tensor, so fake_impl must be 'infer' or a function"),
        ('fake_impl = "infer"', 'fake_impl = "none"'),
    ),
    "no_such_fake": manifest(
        *(0, "split_k_matmul", "KP112 has no function 'fakes' at its top level; did you mean"),
        ("host.py:fake", "host.py:fakes"),
    ),
    "fake_on_cpu": fault(
        *(0, "persistent_sum", "host.py KP117 'torch.empty' allocates on the CPU"),
        (HOST, "input.new_empty(input.size(1))", "torch.empty(input.size(1))"),
    ),
    "nothing_marked": manifest(
        *(
            0,
            "write_cache",
            "KP102 schema returns nothing and writes no argument; mark what it writes",
        ),
        ("Tensor(a!) cache", "Tensor cache"),
    ),
    "one_not_marked": fault(
        *(0, "query_key_norm", "kernel.py KP116 writes its argument 'key', which the schema does"),
        (MANIFEST, "Tensor(b!) key", "Tensor key"),
        (MANIFEST, "key = { rtol = 1e-2, atol = 1e-3 }\n", ""),
    ),
    "view_not_marked": fault(
        *(0, "silu_mul_backward", "kernel.py KP116 writes its argument 'input', which the schema"),
        (MANIFEST, "Tensor grad, Tensor(a!) input", "Tensor(a!) grad, Tensor input"),
        (MANIFEST, "\ninput = { rtol", "\ngrad = { rtol"),
    ),
    "schema_order": manifest(
        *(0, "clamp", "KP103 arguments are (input, high, low), the function's (input, low, high)"),
        ("float? low=None, float? high=None", "float? high=None, float? low=None"),
    ),
    "scalar_type": manifest(
        *(0, "int8_matmul", "KP122 expression 'True' is true or false, and must be a number"),
        ("scale = 0.01", "scale = true"),
    ),
    "wrong_default": manifest(
        *(0, "embedding", "KP103 'padding' has default -1 in the function, 0 by schema"),
        ("padding=-1", "padding=0"),
    ),
    "wrong_results": manifest(
        *(0, "layer_norm_backward", "KP103 by the schema the function returns 'tuple[torch.Tens"),
        ("-> (Tensor, Tensor, Tensor)", "-> (Tensor, Tensor)"),
    ),
    "rule_of_no_axis": manifest(
        *(0, "fp8_matmul", "KP104 key axis 'k_size' is not defined in [axes]"),
        ('axis = ["k", "n"]', 'axis = ["k_size", "n"]'),
    ),
    "rule_out_of_order": manifest(
        *(0, "jagged_sum", "KP105 'inexact' has no effect in the first rule; put the axes"),
        (f"{BY_DTYPE}[[key]]\n{BY_WIDTH}", f'{BY_WIDTH}inexact = "below"\n[[key]]\n{BY_DTYPE}'),
    ),
    "bounds_that_fall": manifest(
        *(0, "small_m_matmul", "KP105 'bounds' must rise, and is [1, 16, 4]"),
        ("bounds = [1, 4, 16]", "bounds = [1, 16, 4]"),
    ),
    "no_presence_rule": manifest(
        *(0, "scale_shift", "KP107 axis 'has_shift' tells whether 'shift' is given and needs a"),
        ('axis = ["has_shift", "repeats"]', 'axis = ["repeats"]'),
    ),
    "presence_inverted": manifest(
        *(0, "rms_norm", "KP133 argument 'residual' is given by [args], and not by axis 'has_r"),
        ('when = "has_residual"', 'when = "not has_residual"'),
    ),
    "no_accuracy": manifest(
        *(0, "rms_norm", "KP109 'residual' is written by the op and has no [accuracy]; say how"),
        ('residual = { rtol = 1e-2, rounding = "input" }\n', ""),
    ),
    "idle_accuracy": manifest(
        *(0, "rms_norm_backward", "KP109 'rtol' has no effect beside 'steps', which counts"),
        ("return = { ", "return = { steps = 1, "),
    ),
    "guard_against_the_grid": manifest(
        *(0, "attention", "KP142 guard 'head_dim in [128, 256]' refuses it; change the case or"),
        ("head_dim in [64, 128]", "head_dim in [128, 256]"),
    ),
    "guard_of_nothing": manifest(
        *(0, "cross_entropy", "KP121 expression 'vocabulary > one': name 'one' is not known here"),
        ('"vocabulary > 1"', '"vocabulary > one"'),
    ),
    "high_of_nothing": manifest(
        *(0, "histogram", "KP121 name 'num_bin' is not known here; did you mean 'num_bins'?"),
        ('high = "num_bins"', 'high = "num_bin"'),
    ),
    "unreachable_case": manifest(
        *(0, "int8_matmul", "KP143 case m=500, k=1024, n=1024 would be tuned, but no call could"),
        ("m = [64, 512]", "m = [64, 500]"),
    ),
    "offsets_without_a_total": manifest(
        *(0, "jagged_mean", "KP132 argument 'offsets': init 'offsets' needs 'total'"),
        (', total = "total"', ""),
    ),
    "offsets_that_cannot_be": manifest(
        *(0, "grouped_matmul", "KP133 has offsets of no runs that cannot end at 256"),
        ('shape = ["num_groups + 1"]', 'shape = ["num_groups // num_groups"]'),
    ),
    "codes_too_wide": manifest(
        *(
            0,
            "int4_matmul",
            "KP133 argument 'packed' has 8 bits an element, which are not codes of",
        ),
        ("bits = 4", "bits = 3"),
    ),
    "empty_argument": manifest(
        *(0, "transpose", "KP132 argument 'input' is a tensor and needs a 'dtype'"),
        ('input = { shape = ["batch", "height", "width"], dtype = "dtype" }', "input = {}"),
    ),
    "empty_axis": manifest(
        *(0, "total_sum", "KP012 'size' must be an array that is not empty, and has 0"),
        ("size = [1, 24]", "size = []"),
    ),
    "negative_stride": manifest(
        *(0, "long_sum", "KP133 '-width' of argument 'input' is -8192, and cannot be below zero"),
        ('init = "uniform"', 'init = "uniform", strides = ["-width", 1]'),
    ),
    "returns_an_argument": fault(
        *(0, "concat", "kernel.py KP115 returns its argument 'right'; PyTorch expects each result"),
        (KERNEL, "    out = torch", "    if split == 0:\n        return right\n    out = torch"),
    ),
    "allocates_on_cpu": fault(
        *(0, "matmul", "kernel.py KP117 'torch.empty' allocates on the CPU, wherever the call's"),
        (KERNEL, ", dtype=x.dtype, device=x.device)", ", dtype=x.dtype)"),
    ),
    "another_package": fault(
        *(0, "linear_recurrence", "host.py KP113 imports 'numpy'; this file may import torch and"),
        (HOST, "import torch\n", "import numpy\nimport torch\n"),
    ),
    "no_such_field": config(
        *(0, "int4_matmul", "KP502 config 0: field 'num_warp' is not known; did you mean 'num_wa"),
        ('"num_warps"', '"num_warp"'),
    ),
    "three_warps": config(
        *(0, "linear_relu", "KP508 config 0: num_warps is 3; it must be a power of two from 1"),
        ('"num_warps": 4', '"num_warps": 3'),
    ),
    "stale_digest": fault(
        *(
            0,
            "cumulative_sum",
            f"{CONFIGS} KP225 unverified: 2 cases were tuned for another source",
        ),
        (KERNEL, "dim=1)", "dim=-1)"),
    ),
    "case_of_no_grid": config(
        *(0, "histogram", "KP215 case size=2048, num_bins=256 is in no grid of [inputs] for"),
        ('"size": 4096', '"size": 2048'),
    ),
    "of_another_gpu": config(
        *(0, "moe_matmul", "KP228 gpu is 'NVIDIA A100', whose platform is nvidia_a100, and the"),
        A100,
    ),
    # Level 1: variants are bound, and configs held against what they bind to.
    "small_blocks": config(
        *(1, "matmul", "KP245 block_sizes is [64, 128, 8], and in Helion becomes [64, 128, 16]"),
        ("[64, 128, 64]", "[64, 128, 8]"),
    ),
    "blocks_too_many": config(
        *(1, "softmax_two_pass", "KP241 block_sizes has 4 entries, and the kernel has 3, for"),
        ('"block_sizes": [', '"block_sizes": [1, '),
    ),
    "registered_blocks": config(
        *(1, "rms_norm_backward", "KP241 block_sizes has 4 entries, and the kernel has 2, for"),
        ('"block_sizes": [', '"block_sizes": [64, 64, '),
    ),
    "reduction_loops": config(
        *(1, "long_sum", "KP241 reduction_loops has 2 entries, and the kernel has 1, for dtype"),
        ('"reduction_loops": [', '"reduction_loops": [1024, '),
    ),
    "indexing_too_short": config(
        *(1, "embedding", "KP241 indexing has 1 entry, and the kernel has 3, for dtype=bfloat16"),
        ('"num_warps"', '"indexing": ["pointer"], "num_warps"'),
    ),
    "not_specialised": fault(
        *(1, "attention", "kernel.py KP240 Using a tensor size in a device allocation requires"),
        (KERNEL, "hl.specialize(query.size(2))", "query.size(2)"),
    ),
    "loop_of_no_constant": fault(
        *(1, "causal_conv", "kernel.py KP240 static_range requires constant integer arguments"),
        (KERNEL, "hl.specialize(weight.size(1))", "weight.size(1)"),
        (MANIFEST, '[helion]\nspecialize = ["taps"]\n', ""),
    ),
    "wrong_rank": fault(
        *(1, "silu_mul_backward", "kernel.py KP240 must match the size of tensor b (u1) at non-"),
        (KERNEL, "above = above_all[tile_t, tile_w]", "above = above_all[tile_t]"),
    ),
    "mixed_dtypes": fault(
        *(1, "linear_relu", "kernel.py KP240 lhs and rhs bitwidth must be the same; correct the"),
        (
            MANIFEST,
            '["out_size", "in_size"], dtype = "dtype"',
            '["out_size", "in_size"], dtype = "float32"',
        ),
    ),
    "generator_that_raises": fault(
        *(
            1,
            "write_cache",
            "host.py KP249 no inputs are made for num_pages=4, page_size=2, width=24",
        ),
        (HOST, 'axes["num_pages"]', 'axes["pages"]'),
    ),
    "other_dtype_than_said": manifest(
        *(1, "write_cache", "KP142 argument 'slots' has dtype int32, and must have int64; correct"),
        ('dtype = "int32", init', 'dtype = "int64", init'),
    ),
    "misspelt_setting": manifest(
        *(1, "persistent_sum", "KP153 which helion.exc does not have; did you mean 'TensorOper"),
        ('"TensorOperationInWrapper"', '"TensorOperationInWraper"'),
    ),
    "default_too_short": manifest(
        *(1, "silu_mul", "KP241 [helion] default: block_sizes has 1 entry, and the kernel has 2"),
        ("block_sizes = [1, 1024]", "block_sizes = [1024]"),
    ),
    # Level 2: configs are compiled.
    "shared_memory": config(
        *(2, "matmul", "KP252 a block needs 589824 bytes of shared memory, and nvidia_h100 has"),
        ('[64, 128, 64], "l2', '[128, 256, 128], "l2'),
        ('"num_stages": 4', '"num_stages": 6'),
    ),
    "fp8_on_a100": fault(
        *(2, "fp8_matmul", "nvidia_a100.json KP250 does not compile for sm_80: CompilationError"),
        (CONFIGS, "nvidia_h100", "nvidia_a100"),
        (CONFIGS, *A100),
    ),
    # Level 3: calls are made.
    "clean": PlantedKind(level=3, kernel="jagged_sum", edits=()),
    "masked_row_written": runs(
        *("write_cache", "KP261 cache[0, 0, 0] is"), (KERNEL, ", extra_mask=taken)", ")")
    ),
    "rows_apart": runs(
        *(
            "write_cache",
            "KP261 rows apart, interpreted: RuntimeError: view size is not compatible",
        ),
        (MANIFEST, '"cache_dtype", init', '"cache_dtype", strides = ["*", "*", 1], init'),
    ),
    "narrow_sum": runs(
        *("split_k_matmul", "KP261 of 128 are off; correct"),
        (KERNEL, "[tile_m, tile_n], dtype=torch.float32", "[tile_m, tile_n], dtype=torch.bfloat16"),
    ),
    "no_tail_mask": runs(
        *("jagged_mean", "KP261 return[0] is"), (KERNEL, ", extra_mask=inside)", ")")
    ),
    "offset_by_one": runs(
        *("jagged_sum", "KP261 return[0, 0] is"),
        (KERNEL, "offsets[run.index + 1] - start", "offsets[run.index + 1] - start - 1"),
    ),
    "last_row_of_a_group": runs(
        *("grouped_matmul", "KP261 is nan, the reference's"),
        (KERNEL, "offsets[group + 1])", "offsets[group + 1] - 1)"),
    ),
    "other_reference": runs(
        *("softmax_two_pass", "KP261 return[0, 0] is"), (HOST, "dim=-1", "dim=0")
    ),
    "writes_its_input": runs(
        *("gelu", "KP261 the kernel returns argument 'input', or a view of it; let it allocate"),
        (KERNEL, "torch.empty_like(flat)", "flat"),
    ),
    "returns_a_view": runs(
        *("clamp", "KP261 the kernel returns argument 'input', or a view of it; let it allocate"),
        (KERNEL, "    flat =", "    if low is None:\n        return input.view(-1)\n    flat ="),
    ),
    "results_swapped": runs(
        *("layer_norm", "KP261 return[1][0] is"), (KERNEL, "out, mean, rstd\n", "out, rstd, mean\n")
    ),
    "result_dtype": runs(
        *("row_extremes", "KP261 torch.int32, the reference's"),
        (KERNEL, "torch.int64", "torch.int32"),
    ),
    "result_of_one_dimension": runs(
        *("total_sum", "KP261 return is (1,) torch.float32, the reference's () torch.float32"),
        (KERNEL, "torch.zeros([]", "torch.zeros([1]"),
        (KERNEL, "(out, []", "(out, [0]"),
    ),
    "result_shape": runs(
        *("transpose", "KP261 torch.bfloat16, the reference's ("),
        (KERNEL, "[batch, width, height]", "[batch, height, width]"),
    ),
    "wrong_combination": runs(
        *("linear_recurrence", "KP261 return[0, 1] is"),
        (KERNEL, "left * right_decay + right", "left * left_decay + right"),
    ),
    "sums_not_zeroed": runs(
        *("split_k_matmul", "KP261 is nan, the reference's"),
        (KERNEL, "torch.zeros([m", "torch.empty([m"),
    ),
    "fake_dtype": runs(
        *("split_k_matmul", "KP263 opcheck test_faketensor: "),
        (HOST, ", dtype=torch.float32)", ")"),
    ),
    "fake_shape": runs(
        *("persistent_sum", "KP263 opcheck test_faketensor: "),
        (HOST, "input.size(1)", "input.size(0)"),
    ),
    "routed_astray": runs(
        *("moe_matmul", "KP261 return[1, 0] is"), (KERNEL, "places // top_k", "places % x.size(0)")
    ),
    "unsigned_codes": runs(
        *("int4_matmul", "KP261 return[0, 0] is"), (KERNEL, "(codes << 4) >> 4", "codes & 15")
    ),
    "scale_transposed": runs(
        *("fp8_matmul", "KP261 return[0, 1] is"),
        (KERNEL, "x_scale[tile_m][:, None]", "x_scale[tile_n][None, :]"),
        (KERNEL, "weight_scale[tile_n][None, :]", "weight_scale[tile_m][:, None]"),
    ),
    "summed_the_other_way": runs(
        *("layer_norm_backward", "KP261 return[2][0] is"),
        (KERNEL, "torch.sum(above, dim=0)", "torch.sum(above, dim=-1)"),
    ),
    "wrong_stride": runs(
        *("cross_entropy", "KP261 return[1] is"),
        (KERNEL, "rows.index * vocabulary", "rows.index * num_rows"),
    ),
    "codes_out_of_range": runs(
        *("histogram", "KP261 IndexError: index out of range for dim 0 of size"),
        (MANIFEST, 'high = "num_bins"', 'high = "num_bins + 1"'),
    ),
    "no_host_assert": runs(
        "batched_matmul", "KP261 Expected size for first two dimensions of batch2 tensor", *K_OF_Y
    ),
    "guard_takes_a_dtype": runs(
        *("gather_rows", "KP261 IndexError: tensors used as indices must be long, int, byte or"),
        (MANIFEST, "in [int32, int64]", "in [int16, int32, int64]"),
    ),
    "guard_takes_no_rows": runs(
        *(
            "rms_norm_backward",
            "KP261 num_tokens=0, hidden_size=24, dtype=bfloat16, interpreted: Z",
        ),
        (MANIFEST, '"num_tokens >= 1", ', ""),
    ),
    "guard_takes_no_keys": runs(
        *("attention", "KP261 is nan, the reference's 0"), (MANIFEST, '"key_len >= 1", ', "")
    ),
    "one_token": runs(
        *("linear_relu", "KP261 call num_tokens=1, "),
        (
            KERNEL,
            "    for tile_t",
            "    if num_tokens == 1:\n        return x.new_zeros([1, out_size])\n    for tile_t",
        ),
    ),
    "wrong_gradient": runs(
        *("silu_mul_backward", "KP261 are off; correct the kernel, its ref"),
        (KERNEL, "(above * silu)", "(above * gate)"),
    ),
    "wrong_factor": runs(
        *("scale_shift", "KP261 return[0, 0] is"),
        (KERNEL, "+ shift[tile_w]", "+ shift[tile_w] * factor"),
    ),
    "no_epsilon": runs(
        *("query_key_norm", "KP261 of zeros, interpreted: query[0, 0] is nan, the reference's 0"),
        (KERNEL, "/ head_dim + epsilon)", "/ head_dim)"),
    ),
    "k_cut_off": runs(
        *("small_m_matmul", "KP261 return[0, 0] is"), (KERNEL, "hl.tile(k)", "hl.tile(16)")
    ),
    "one_of_several_texts": runs(
        *("activation_mul", "KP261 activation=gelu_tanh, "), (KERNEL, "(x + cube)", "(x - cube)")
    ),
    "first_left_out": runs(
        *("moving_sum", "KP261 are off; correct"), (KERNEL, "place >= 0", "place > 0")
    ),
    "moved_to_the_left": runs(
        *("roll", "KP261 return[0, 0] is"), (KERNEL, "(width - right)", "right")
    ),
    "parts_too_short": runs(
        *("sliced_matmul", "KP261 return[0, 0] is"),
        (KERNEL, "hl.tile(part.begin, part.end)", "hl.tile(part.begin, part.end - 1)"),
    ),
    "epsilon_of_one": runs(
        *("rms_norm_forward", "KP261 are off; correct the kernel, its ref"),
        (KERNEL, "square + epsilon", "square + 1.0"),
    ),
    "written_without_the_largest": runs(
        *("softmax_lse", "KP261 lse[0] is"), (KERNEL, "largest + torch.log", "torch.log")
    ),
    "taps_reversed": runs(
        *("causal_conv", "KP261 return[0, 0] is"), (KERNEL, "taps - 1 - back", "back")
    ),
    "halves_exchanged": runs(
        *("concat", "KP261 return[0, 0] is"),
        (KERNEL, "torch.where(in_left, x, y)", "torch.where(in_left, y, x)"),
    ),
    "padding_ignored": runs(
        *("embedding", "KP261 the reference's 0"),
        (MANIFEST, "num_tokens = [1, 6]", "num_tokens = [1, 8]"),
        (KERNEL, "places[:, None] == padding", "places[:, None] == -1"),
    ),
    "reference_that_raises": runs(
        *("cross_entropy", "KP261 expected target dtype to be Long or Byte, but got Int (host.py"),
        (MANIFEST, 'dtype = "int64"', 'dtype = "int32"'),
    ),
    "undeclared_write": runs(
        *("rms_norm", "KP263 opcheck test_schema: Argument residual is not defined as mutable"),
        (MANIFEST, "Tensor(b!)? residual", "Tensor? residual"),
        (MANIFEST, 'residual = { rtol = 1e-2, rounding = "input" }\n', ""),
        (
            KERNEL,
            "residual[tile, :] = x.to(residual.dtype)",
            "hl.store(*[residual], [tile, slice(None)], x.to(residual.dtype))",
        ),
    ),
}
"""By the name under which the kernel is planted."""
