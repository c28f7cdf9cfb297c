"""A whole vLLM engine with routes and without, in turns: its start, and time for the same tokens.

Dummy weights in the shape of Qwen3-8B-FP8. Each round starts both sides in processes of their own.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import report

MODEL = {
    "architectures": ["Qwen3ForCausalLM"],
    "model_type": "qwen3",
    "hidden_size": 4096,
    "intermediate_size": 12288,
    "num_hidden_layers": 36,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "hidden_act": "silu",
    "vocab_size": 151936,
    "max_position_embeddings": 40960,
    "rms_norm_eps": 1e-6,
    "rope_theta": 1000000,
    "torch_dtype": "bfloat16",
    "bos_token_id": 151643,
    "eos_token_id": 151645,
    "tie_word_embeddings": False,
    "quantization_config": {
        "quant_method": "fp8",
        "fmt": "e4m3",
        "activation_scheme": "dynamic",
        "weight_block_size": [128, 128],
    },
}
"""What the configuration of Qwen3-8B-FP8 says of its shape."""

MIXES = ((1, 128, 128), (16, 128, 128), (64, 512, 64), (8, 3500, 4))
"""Requests at once, tokens of each prompt, and new tokens of each."""

SETTINGS = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_USE_DEEP_GEMM": "0",
    "VLLM_USE_FLASHINFER_SAMPLER": "0",
    "VLLM_NO_USAGE_STATS": "1",
    "HF_HUB_OFFLINE": "1",
}


def engine(model: str, eager: bool, monitor: str, seconds: float) -> dict[str, Any]:
    """Start an engine, time the mixes, and send requests of random lengths for some seconds."""
    begin = time.perf_counter()
    from vllm import LLM, SamplingParams

    imported = time.perf_counter()
    llm = LLM(
        model=model,
        load_format="dummy",
        skip_tokenizer_init=True,
        seed=0,
        max_model_len=4096,
        gpu_memory_utilization=0.5,
        enable_prefix_caching=False,
        attention_config={"backend": "TRITON_ATTN"},
        enforce_eager=eager,
        jit_monitor_mode=monitor,
        compilation_config={
            "pass_config": {
                "fuse_norm_quant": True,
                "fuse_act_quant": True,
                "enable_qk_norm_rope_fusion": True,
            },
            "custom_ops": ["+rms_norm", "+quant_fp8", "+silu_and_mul", "+rotary_embedding"],
        },
    )
    started = time.perf_counter()
    rng = random.Random(1)

    def run(requests: int, prompt: int, new: int) -> float:
        prompts = [
            {"prompt_token_ids": [rng.randrange(1000, 150000) for _ in range(prompt)]}
            for _ in range(requests)
        ]
        params = SamplingParams(temperature=0, max_tokens=new, ignore_eos=True, detokenize=False)
        start = time.perf_counter()
        llm.generate(prompts, params, use_tqdm=False)
        return time.perf_counter() - start

    best = [min(run(*mix) for _ in range(3)) for mix in MIXES]
    until, sent = time.perf_counter() + seconds, 0
    while time.perf_counter() < until:
        run(rng.randint(1, 48), rng.randint(1, 2048), rng.randint(1, 24))
        sent += 1
    found = {"import": imported - begin, "start": started - imported, "best": best, "sent": sent}
    if os.environ.get("KERNELPKG_VLLM_ROUTES"):
        from kernelpkg import plugin

        found["routes"] = [
            {"native": r.target, "ours": r.ours, "passed": dict(r.native)} for r in plugin.report()
        ]
        found["compiled"] = _compiled()
    return found


def _compiled() -> dict[str, int]:
    """How many kernels of ours were compiled in this process, by op."""
    from kernelpkg import get_registered_kernels

    return {
        name: kernel.backend.compiled_count() for name, kernel in get_registered_kernels().items()
    }


def side(routes: str, options: Any, model: str) -> dict[str, Any]:
    environment = {**os.environ, **SETTINGS, "KERNELPKG_VLLM_ROUTES": routes}
    out = Path(model, f"{routes or 'native'}.json")
    words = [sys.executable, "-W", "ignore", __file__, "--child", model, str(out)]
    words += [str(int(options.eager)), options.monitor, str(options.seconds)]
    log = Path(model, "log.txt")
    with log.open("w") as file:
        done = subprocess.run(words, env=environment, stdout=file, stderr=file, check=False)
    if done.returncode:
        raise SystemExit(
            f"routes '{routes}' ended with {done.returncode}: {log.read_text()[-3000:]}"
        )
    found: dict[str, Any] = json.loads(out.read_text())
    return found


def main() -> None:
    if sys.argv[1:2] == ["--child"]:
        model, out, eager, monitor, seconds = sys.argv[2:7]
        found = engine(model, eager == "1", monitor, float(seconds))
        Path(out).write_text(json.dumps(found))
        return
    parser = report.options(__doc__)
    parser.add_argument("--eager", action="store_true", help="without CUDA graphs")
    parser.add_argument("--monitor", default="warn", help="mode of vLLM's JIT monitor: warn, error")
    parser.add_argument("--seconds", type=float, default=0.0, help="of requests of random lengths")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--routes-only", action="store_true", help="one side, for the monitor")
    options = parser.parse_args()
    rows, starts = [], []
    with tempfile.TemporaryDirectory() as model:
        Path(model, "config.json").write_text(json.dumps(MODEL))
        sides = ("all",) if options.routes_only else ("", "all")
        found = [
            {name: side(name, options, model) for name in sides} for _ in range(options.rounds)
        ]
    last = found[-1]["all"]
    if options.routes_only:
        rows = [{"native op": r["native"], "ours": r["ours"], "passed": sum(r["passed"].values())}
                for r in last["routes"]]  # fmt: skip
        print(f"{last['sent']} batches of random lengths; compiled: {last['compiled']}")
        report.finish("engine", rows, [], options.json)
        return
    for place, mix in enumerate(MIXES):
        native, ours = (min(r[name]["best"][place] for r in found) for name in ("", "all"))
        row = dict(zip(("requests", "prompt", "new"), mix, strict=True))
        rows.append({**row, "native s": native, "routed s": ours, "ratio": ours / native})
    starts = [min(r[name]["start"] for r in found) for name in ("", "all")]
    targets = [report.target("start with routes over without", starts[1] - starts[0], 2.0, "s")]
    most = 1.0 if options.eager else 0.95
    targets += [
        report.target(f"time of {row['requests']} requests", row["ratio"], most, "x")
        for row in rows
    ]
    print("routes:", last["routes"], "compiled:", last["compiled"], "starts:", starts)
    report.finish("engine", rows, targets, options.json)


if __name__ == "__main__":
    main()
