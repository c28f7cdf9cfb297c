"""What a worker does for one case: search, hold against the reference, time in turns."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import torch
from attrs import frozen

from kernelpkg.bench import timing
from kernelpkg.bench.inputs import make_inputs
from kernelpkg.bench.reference import differences, disagreement
from kernelpkg.bench.timing import ColdTimes
from kernelpkg.compile import helion
from kernelpkg.compile.search import Tunable
from kernelpkg.configs.store import config_id
from kernelpkg.errors import ConfigError, PackError, unforeseen
from kernelpkg.jobs.pool import cores
from kernelpkg.manifest.cases import Case, CaseProblem, check_bytes, shown_bytes
from kernelpkg.manifest.helion_config import Config
from kernelpkg.manifest.spec import KernelSpec
from kernelpkg.packs.read import read_kernel
from kernelpkg.packs.sources import load_function

facts = timing.facts
"""What sets the device of a worker apart; `jobs.pool` asks for it."""

_BROKEN: Final = ("CUDA error", "HIP error", "Triton Error")
"""What errors say after which the process is of no more use."""

FEW: Final = 5
"""How many configs of a search are timed against each other; its own times are of few runs."""


@frozen(kw_only=True, eq=False)
class TuningCase:
    """One case of a kernel with its arguments, and what Helion makes of both."""

    spec: KernelSpec
    case: Case
    beside: Case | None
    single: Case | None
    device: str

    @cached_property
    def args(self) -> tuple[Any, ...]:
        """The arguments that are searched and timed with."""
        return make_inputs(self.spec, self.case, device=self.device)

    @cached_property
    def settings(self) -> dict[str, Any]:
        """Helion's settings for the kernel."""
        return helion.check_settings(self.spec.settings, self.spec.name)

    @cached_property
    def function(self) -> Callable[..., Any]:
        """The Helion function."""
        found: Callable[..., Any] = load_function(Path(self.spec.directory), self.spec.source)
        return found

    @cached_property
    def tunable(self) -> Tunable:
        """The kernel as Helion's autotuner has it."""
        return Tunable(
            self.function,
            self.settings,
            self.args,
            reference=self._reference,
            agrees=self._agrees,
        )

    @property
    def _reference(self) -> Callable[..., Any] | None:
        if self.spec.reference is None:
            return None
        found: Callable[..., Any] = load_function(Path(self.spec.directory), self.spec.reference)
        return found

    @cached_property
    def kernel(self) -> helion.ConfiguredHelionKernel:
        """The kernel as the op launches it."""
        return helion.ConfiguredHelionKernel(
            op_name=self.spec.name,
            raw_kernel_func=self.function,
            select=lambda _: helion.Selection(config_id=None, config=None),
            settings=self.settings,
        )

    def default(self) -> Config:
        """The config of calls for which nothing is tuned, all fields given."""
        if self.spec.default is None:
            return self.tunable.default()
        return self.tunable.normalised(self.spec.default)

    def wrong(self, bench: Gpu, config: Config) -> str | None:
        """Say how a config's results differ from the reference's, or return None.

        On the case, on other values, and on a call off the tuned grid that gets its config.
        """
        return self._differs(bench, config, (self.case, 0), (self.case, 1), (self.beside, 0))

    def wrong_alone(self, bench: Gpu, config: Config) -> str | None:
        """Do the same on a call of size 1, which costs a compilation more."""
        return self._differs(bench, config, (self.single, 0))

    def _differs(self, bench: Gpu, config: Config, *runs: tuple[Case | None, int]) -> str | None:
        call = bench.call(self, config)
        for case, variation in runs:
            if case is None:
                continue
            found = disagreement(self.spec, call, case, device=self.device, variation=variation)
            if found is not None:
                return f"{case}: {found}"
        return None

    def _agrees(self, got: Any, want: Any) -> None:
        """Hold what a config wrote against the reference: results, or all arguments."""
        schema = self.spec.schema
        if isinstance(got, tuple | list) and len(got) == len(schema.args) and schema.returns == 0:
            pairs = (got, None), (want, None)
        elif schema.returns and not (isinstance(got, tuple | list) and len(got) != schema.returns):
            pairs = (self.args, got), (self.args, want)
        else:
            return
        wrong = differences(self.spec, *pairs)
        if wrong:
            raise AssertionError("; ".join(wrong))


class Gpu:
    """The GPU of this process: how configs are found, run and timed; tests have other ways."""

    device = "cuda"

    def free(self) -> int:
        """Return the bytes of memory that are free."""
        return int(torch.cuda.mem_get_info()[0]) + torch.cuda.memory_reserved()

    def search(self, tuned: TuningCase, payload: Mapping[str, Any]) -> list[Config]:
        """Return the configs that a search finds, the best first."""
        return list(
            tuned.tunable.search(
                payload["seeds"],
                effort=payload["effort"],
                budget=payload["budget"],
                # Helion forks a process for each compilation, and all workers of a host do so.
                jobs=max(1, cores() // payload["sharing"]),
                most=FEW,
            )
        )

    def call(self, tuned: TuningCase, config: Config) -> Callable[..., Any]:
        """Return what runs calls with a config."""
        selection = helion.Selection(config_id=config_id(config), config=config)
        return lambda *args: tuned.kernel.launcher(args, selection)(*args)

    def launch(self, tuned: TuningCase, config: Config) -> Callable[[], Any]:
        """Return what launches the case with a config, and does nothing else."""
        selection = helion.Selection(config_id=config_id(config), config=config)
        launcher, args = tuned.kernel.launcher(tuned.args, selection), tuned.args
        return lambda: launcher(*args)

    def time(self, launches: Sequence[Callable[[], Any]]) -> list[list[float]]:
        """Return milliseconds by round and launch."""
        return timing.time_cold(launches)


def perform(payload: Mapping[str, Any], bench: Gpu | None = None) -> dict[str, Any]:
    """Do a job that `OpRun.job` made, and return what `OpRun.take` takes: plain JSON.

    `failed` in it says that the case cannot be tuned here. What a kernel raises is left to the
    process around this one.
    """
    found = Gpu() if bench is None else bench
    values = [payload["case"], payload["beside"], payload["single"]]
    case, beside, single = (
        None if value is None else Case(values=value, use=("tune",), grid=0) for value in values
    )
    assert case is not None
    spec = read_kernel(Path(payload["root"]), payload["kernel"])
    try:
        needed, free = check_bytes(spec, case), found.free()
        if needed > free:
            return {"failed": f"needs {shown_bytes(needed)}, and {shown_bytes(free)} are free"}
        tuned = TuningCase(spec=spec, case=case, beside=beside, single=single, device=found.device)
        return (_timed if payload["kind"] == "timed" else _searched)(tuned, payload, found)
    except CaseProblem as error:
        return {"failed": str(error)}
    except torch.OutOfMemoryError:
        return {"failed": f"the GPU's memory is too small; {shown_bytes(found.free())} are free"}
    finally:
        if found.device == "cuda":  # what is cached fits this case, and the next has other sizes
            torch.cuda.empty_cache()


def _searched(tuned: TuningCase, payload: Mapping[str, Any], bench: Gpu) -> dict[str, Any]:
    """Search a case, and hold the best of what was found against the old and the default."""
    configs: dict[str, Config] = {}
    wrong: dict[str, str] = {}
    for side, config in (("old", payload["old"]), ("default", None)):
        if side == "old" and config is None:
            continue
        try:
            configs[side] = tuned.default() if config is None else config
            problem = _wholly(tuned, bench, configs[side])
        except ConfigError as error:
            problem = str(error)
        if problem is not None:
            wrong[side] = problem
    known = {config_id(_full(tuned, config)) for config in configs.values()}
    right: list[Config] = []
    for config in [*bench.search(tuned, payload), *payload["seeds"]]:
        text = config_id(_full(tuned, config))
        if text in known or len(right) == FEW:
            continue
        known.add(text)
        problem = _problem(bench, config, tuned.wrong)
        if problem is None:
            right.append(config)
        else:
            wrong.setdefault("new", problem)
    while right and "new" not in configs:
        fastest = _fastest(tuned, bench, right)
        problem = _problem(bench, fastest, tuned.wrong_alone)
        if problem is None:
            configs["new"] = fastest
            wrong.pop("new", None)
        else:
            right.remove(fastest)
            wrong.setdefault("new", problem)
    sides = [side for side in ("old", "default", "new") if side in configs and side not in wrong]
    times = _times(tuned, bench, [configs[side] for side in sides])
    return {
        "configs": {side: dict(config) for side, config in configs.items()},
        "ms": dict(zip(sides, times.ms, strict=False)),
        "ratios": dict(zip(sides, times.ratios, strict=False)),
        "noise": times.noise,
        "wrong": wrong,
        "found": [dict(config) for config in right],
    }


def _timed(tuned: TuningCase, payload: Mapping[str, Any], bench: Gpu) -> dict[str, Any]:
    """Time the configs of a portfolio on a case, with the old and the default one."""
    old, default = payload["old"], tuned.default()
    configs = {config_id(default): default}
    configs |= {config_id(config): config for config in payload["configs"]}
    if old is not None:
        configs = {config_id(old): old} | configs
    problems = {text: _wholly(tuned, bench, config) for text, config in configs.items()}
    right = [text for text, problem in problems.items() if problem is None]
    times = _times(tuned, bench, [configs[text] for text in right])
    return {
        "configs": {text: dict(config) for text, config in configs.items()},
        "tried": list(configs),
        "ms": dict(zip(right, times.ms, strict=False)),
        "ratios": dict(zip(right, times.ratios, strict=False)),
        "noise": times.noise,
        "wrong": {text: problem for text, problem in problems.items() if problem is not None},
        "old": None if old is None else config_id(old),
        "default": config_id(default),
    }


def _wholly(tuned: TuningCase, bench: Gpu, config: Config) -> str | None:
    """Say why a config may not be used for the case, nor for a call of size 1, or return None."""
    return _problem(bench, config, tuned.wrong) or _problem(bench, config, tuned.wrong_alone)


def _problem(bench: Gpu, config: Config, wrong: Callable[[Gpu, Config], str | None]) -> str | None:
    try:
        return wrong(bench, config)
    except (CaseProblem, PackError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # Helion, Triton and ptxas each refuse configs in their own ways
        text = " ".join(f"{type(error).__name__}: {error}".split())
        if any(word in text for word in _BROKEN):
            raise  # the CUDA context is lost: every later launch here fails, and blames its config
        unforeseen(error)
        return text


def _full(tuned: TuningCase, config: Config) -> Config:
    """Return a config with all fields, by which two are one; as it is where Helion refuses it."""
    try:
        return tuned.tunable.normalised(config)
    except ConfigError:
        return config


def _fastest(tuned: TuningCase, bench: Gpu, configs: Sequence[Config]) -> Config:
    """Return the fastest of a few configs; it is timed anew against the others that matter."""
    if len(configs) == 1:
        return configs[0]
    times = _times(tuned, bench, configs).ms[: len(configs)]
    return configs[times.index(min(times))]


def _times(tuned: TuningCase, bench: Gpu, configs: Sequence[Config]) -> ColdTimes:
    """Time configs in turns, the first of them twice, so that the noise shows."""
    if not configs:
        return ColdTimes(ms=(), ratios=(), noise=0.0)
    launches = [bench.launch(tuned, config) for config in (*configs, configs[0])]
    return timing.summarised(bench.time(launches), base=0, twin=len(configs))
