"""vLLM 0.33's hand-written config pickers, out of its wheel, without importing vLLM.

The wheel is unpacked in KERNELPKG_VLLM_DIR (the directory that holds `vllm/`), or was put by the
tests of kind `vllm` into ~/.cache/kernelpkg/vllm-0.33.0.
"""

from __future__ import annotations

import ast
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from attrs import frozen

VERSION = "0.33.0"
FOLDER = Path("vllm", "kernels", "helion")

RENAMED = {
    "silu_mul_fp8": {"intermediate": "intermediate_size", "numtokens": "num_tokens"},
    "fused_qk_norm_rope": {"q_heads": "num_heads_q", "kv_heads": "num_heads_k"},
}
"""vLLM's names of axes, and ours."""


@frozen(kw_only=True)
class TheirPicker:
    """A picker of vLLM with the keys that it ships for one platform, as vLLM passes them.

    `function` takes the arguments of a call and `keys`; `cache` is what it remembers. `ours` are
    the same keys with our names of the axes.
    """

    function: Callable[[tuple[Any, ...], list[Any]], Any]
    cache: dict[Any, Any]
    keys: list[Any]
    ours: list[dict[str, Any]]
    kernel: str

    def pick(self, args: tuple[Any, ...]) -> dict[str, Any]:
        """Return the key for a call, with our names of the axes."""
        return renamed(self.kernel, self.function(args, self.keys))


def wheel() -> Path | None:
    """Return the directory that holds `vllm/`, or None where there is none."""
    given = os.environ.get("KERNELPKG_VLLM_DIR")
    place = Path(given) if given else Path.home() / ".cache" / "kernelpkg" / f"vllm-{VERSION}"
    return place if (place / FOLDER).is_dir() else None


def renamed(kernel: str, key: dict[str, Any]) -> dict[str, Any]:
    """Return a key of vLLM with our names of the axes."""
    names = RENAMED.get(kernel, {})
    return {names.get(axis, axis): value for axis, value in key.items()}


def platforms(root: Path, kernel: str) -> list[str]:
    """Return the platforms that vLLM ships configs of a kernel for."""
    return sorted(path.stem for path in (root / FOLDER / "configs" / kernel).glob("*.json"))


def read(root: Path, kernel: str, platform: str) -> TheirPicker:
    """Take a picker and its cache out of their file, and its keys out of vLLM's config file."""
    space: dict[str, Any] = {"Any": Any}
    source = (root / FOLDER / "case_key.py").read_text(encoding="utf-8")
    exec(compile(source, "case_key.py", "exec"), space)
    module = ast.parse((root / FOLDER / "ops" / f"{kernel}.py").read_text(encoding="utf-8"))
    (function,) = (
        node
        for node in module.body
        if isinstance(node, ast.FunctionDef)
        and [argument.arg for argument in node.args.args] == ["args", "config_keys"]
    )
    space["_pick_cache"] = cache = {}
    exec(compile(ast.Module(body=[function], type_ignores=[]), f"{kernel}.py", "exec"), space)
    file = root / FOLDER / "configs" / kernel / f"{platform}.json"
    entries = json.loads(file.read_text(encoding="utf-8"))
    # As ConfigSet.get_config_keys does it.
    keys = sorted((space["CaseKey"](entry["key"], _allow_empty=True) for entry in entries), key=str)
    return TheirPicker(
        function=space[function.name],
        cache=cache,
        keys=keys,
        ours=[renamed(kernel, key) for key in keys],
        kernel=kernel,
    )
