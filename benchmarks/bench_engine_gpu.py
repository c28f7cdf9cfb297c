"""A whole vLLM engine with routes and without, in turns: its start, and time for the same tokens.

Dummy weights in the shape of Qwen3-8B-FP8. Each round starts both sides in processes of their own,
and each side has caches of its own: they are empty in the first round and full in later ones. With
`--together` both start at the same time, so that what the machine does in between touches both;
then only starts are to be compared. Requests of random lengths are sent to the side with routes, in
the last round.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
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

MONITOR = "during inference"
"""What lines of vLLM's JIT monitor say."""

SETTINGS = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_USE_DEEP_GEMM": "0",
    "VLLM_USE_FLASHINFER_SAMPLER": "0",
    "VLLM_NO_USAGE_STATS": "1",
    "HF_HUB_OFFLINE": "1",
}


def engine(model: str, asked: Mapping[str, Any]) -> dict[str, Any]:
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
        gpu_memory_utilization=0.25 if asked["together"] else 0.5,
        kv_cache_memory_bytes=20 << 30,  # given, for measuring needs the GPU alone
        enable_prefix_caching=False,
        attention_config={"backend": "TRITON_ATTN"},
        enforce_eager=asked["eager"],
        jit_monitor_mode=asked["monitor"],
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

    mixes = [MIXES[place] for place in asked["mixes"]]
    times = [[run(*mix) for _ in range(asked["repeats"])] for mix in mixes]
    kernels = gpu_times(partial(run, *mixes[-1])) if asked["profile"] else {}
    seconds = asked["seconds"] if os.environ.get("KERNELPKG_VLLM_ROUTES") else 0.0
    until, sent = time.perf_counter() + seconds, 0
    while time.perf_counter() < until:
        run(rng.randint(1, 48), rng.randint(1, 2048), rng.randint(1, 24))
        sent += 1
    found = {"import": imported - begin, "start": started - imported, "times": times, "sent": sent}
    return {**found, "kernels": kernels, **_ours()}


def _ours() -> dict[str, Any]:
    """Who answered, what was compiled, and why, in a process that has routes."""
    if not os.environ.get("KERNELPKG_VLLM_ROUTES"):
        return {}
    from kernelpkg import get_registered_kernels, plugin

    kernels = get_registered_kernels()
    return {
        "routes": [
            {"native": r.target, "ours": r.ours, "passed": dict(r.native)} for r in plugin.report()
        ],
        "compiled": {name: kernel.backend.compiled_count() for name, kernel in kernels.items()},
        "fallbacks": {name: dict(kernel.fallbacks()) for name, kernel in kernels.items()},
    }


def gpu_times(run: Callable[[], object]) -> dict[str, float]:
    """Return the milliseconds of the GPU in each kernel of a run, by name."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CUDA]) as seen:
        run()
    return {event.key: event.self_device_time_total / 1000 for event in seen.key_averages()}


def side(routes: str, asked: Mapping[str, Any], model: str) -> dict[str, Any]:
    """Run one side in a process and with caches of its own."""
    name = routes or "native"
    caches = {
        variable: str(Path(model, name, variable.lower()))
        for variable in ("VLLM_CACHE_ROOT", "TRITON_CACHE_DIR", "TORCHINDUCTOR_CACHE_DIR")
    }
    environment = {**os.environ, **SETTINGS, **caches, "KERNELPKG_VLLM_ROUTES": routes}
    out = Path(model, f"{name}.json")
    words = [sys.executable, "-W", "ignore", __file__, "--child", model, str(out)]
    with Path(model, f"{name}.txt").open("w+") as log:
        done = subprocess.run(
            [*words, json.dumps(asked)], env=environment, stdout=log, stderr=log, check=False
        )
        log.seek(0)
        told = log.read()
    if done.returncode:
        raise SystemExit(f"routes '{routes}' ended with {done.returncode}: {told[-3000:]}")
    found: dict[str, Any] = json.loads(out.read_text())
    found["monitor"] = sorted({line[-160:] for line in told.splitlines() if MONITOR in line})
    times = ", ".join(f"{min(times):.3f}" for times in found["times"])
    print(f"{name}: {found['start']:.1f} s to start; {times} s", flush=True)
    return found


def _starts(native: list[float], ours: list[float]) -> list[tuple[str, float, float]]:
    """Return the seconds of both sides with empty caches and, after more rounds, with full ones."""
    full = [("full", min(native[1:]), min(ours[1:]))] if native[1:] else []
    return [("empty", native[0], ours[0]), *full]


def _changed(native: dict[str, float], ours: dict[str, float]) -> list[str]:
    """Return a line for each kernel whose GPU time differs by more than a hundredth of all."""
    whole = sum(native.values()), sum(ours.values())
    lines = [f"  {whole[0]:10.2f} {whole[1]:10.2f} ms of the GPU in all"]
    for name in sorted({*native, *ours}):
        one, other = native.get(name, 0.0), ours.get(name, 0.0)
        if abs(one - other) > whole[0] / 100:
            lines.append(f"  {one:10.2f} {other:10.2f} {name[:90]}")
    return lines


def main() -> None:
    if sys.argv[1:2] == ["--child"]:
        model, out, asked = sys.argv[2:5]
        Path(out).write_text(json.dumps(engine(model, json.loads(asked))))
        return
    parser = report.options(__doc__)
    parser.add_argument("--eager", action="store_true", help="without CUDA graphs")
    parser.add_argument("--monitor", default="warn", help="vLLM's JIT monitor: warn, error")
    parser.add_argument("--seconds", type=float, default=0.0, help="of random requests, at the end")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=4, help="of each mix, in each round")
    parser.add_argument("--mixes", type=int, nargs="+", default=[*range(len(MIXES))])
    parser.add_argument("--profile", action="store_true", help="kernels of the last mix, by time")
    parser.add_argument("--together", action="store_true", help="both at once: compare starts")
    parser.add_argument("--routes-only", action="store_true", help="one side, for the monitor")
    options = parser.parse_args()
    asked = {**vars(options), "json": None}
    sides = ("all",) if options.routes_only else ("", "all")
    with tempfile.TemporaryDirectory() as model:
        Path(model, "config.json").write_text(json.dumps(MODEL))
        found = []
        for number in range(options.rounds):
            now = asked if number == options.rounds - 1 else {**asked, "seconds": 0.0}
            with ThreadPoolExecutor(len(sides) if options.together else 1) as pool:
                order = sides[:: -1 if number % 2 else 1]
                both = {name: pool.submit(side, name, now, model) for name in order}
            found.append({name: one.result() for name, one in both.items()})
    last = found[-1]["all"]
    print("compiled:", last["compiled"], "fallbacks:", last["fallbacks"])
    print(f"{last['sent']} batches of random lengths; the JIT monitor said:")
    print(*(last["monitor"] or ["nothing"]), sep="\n")
    for route in last["routes"]:
        print(f"{route['native']}: {route['ours']} calls are ours; passed: {route['passed']}")
    if options.routes_only:
        return
    rows = []
    for place, number in enumerate(options.mixes):
        native, ours = (min(min(r[name]["times"][place]) for r in found) for name in ("", "all"))
        row = dict(zip(("requests", "prompt", "new"), MIXES[number], strict=True))
        rows.append({**row, "native s": native, "routed s": ours, "ratio": ours / native})
    for both in found:
        print("starts:", ", ".join(f"{one['start']:.1f} s {name}" for name, one in both.items()))
    starts = _starts(*([r[name]["start"] for r in found] for name in ("", "all")))
    what = "start with routes over without"
    targets = [
        report.target(f"{what}, {caches} caches", ours - native, 2.0, "s")
        for caches, native, ours in starts
    ]
    most = 1.0 if options.eager else 0.95
    targets += [
        report.target(f"time of {row['requests']} requests", row["ratio"], most, "x")
        for row in rows
    ]
    if options.profile:
        print("\n".join(_changed(found[-1][""]["kernels"], last["kernels"])))
    report.finish("engine", rows, targets, options.json)


if __name__ == "__main__":
    main()
