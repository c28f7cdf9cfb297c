"""Helion's autotuner: a search for one case, quiet, seeded and with a budget.

Helion 1.4 and 1.5 take the same settings. The search is the one that both have as their default,
without the cache around it: what it finds depends on its seeds alone.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import helion
from helion.autotuner import LFBOTreeSearch
from helion.autotuner.effort_profile import get_effort_profile
from helion.runtime.ref_mode import RefMode

from kernelpkg.compile.helion import complete, to_config
from kernelpkg.compile.settings import create_helion_decorated_kernel
from kernelpkg.configs.store import config_id
from kernelpkg.errors import ConfigError
from kernelpkg.manifest.helion_config import Config

_SILENT: Final = 100
"""A log level above all that Helion logs with."""

Agrees = Callable[[Any, Any], None]
"""Takes what a config wrote and what the reference did; raises AssertionError where they differ."""


class Tunable:
    """A kernel bound to the arguments of one case, as Helion tunes it.

    `settings` are as `helion.check_settings` returns them. Of each config that is tried, what it
    writes is held against the reference by `agrees`, or against the default config's where there is
    none.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        settings: Mapping[str, Any],
        args: Sequence[Any],
        *,
        reference: Callable[..., Any] | None,
        agrees: Agrees,
    ) -> None:
        self._args = tuple(args)
        self._settings = {
            **settings,
            "static_shapes": False,
            "ref_mode": RefMode.OFF,
            "print_output_code": False,
            "autotune_baseline_fn": reference,
            "autotune_baseline_accuracy_check_fn": agrees,
            "autotune_accuracy_check": True,
            "autotune_ignore_errors": True,
            "autotune_log_level": _SILENT,
            "autotune_progress_bar": False,
            "autotune_random_seed": 0,
            # The process around is killed where a kernel hangs; one more for each search takes 8 s.
            "autotune_benchmark_subprocess": False,
            "autotune_precompile": "fork",
        }
        self._function = function
        self._bound = helion.kernel(**self._settings)(function).bind(self._args)

    def default(self) -> dict[str, Any]:
        """Return Helion's own default config, all fields given."""
        return self._given(self._bound.config_spec.default_config())

    def normalised(self, config: Config) -> dict[str, Any]:
        """Return a config with all fields given; raises ConfigError where Helion refuses it."""
        found = complete(self._bound, config)
        try:
            self._bound.config_spec.normalize(found)
        except helion.exc.InvalidConfig as error:
            text = " ".join(str(error).split())
            raise ConfigError(f"Helion refuses it: {text}") from None
        return self._given(found)

    def search(
        self, seeds: Sequence[Config], *, effort: str, budget: int | None, jobs: int, most: int
    ) -> list[dict[str, Any]]:
        """Return the best configs that a search finds, the best first, at most so many.

        `effort` is "none", "quick" or "full"; with "none" there is no search. `budget` is in
        seconds, `jobs` how many compilations run at once. Nothing is returned where no config
        could be timed within the budget.
        """
        if effort == "none":
            return []
        asked = {
            "autotune_effort": effort,
            "autotune_budget_seconds": budget,
            "autotune_seed_configs": [to_config(seed) for seed in seeds],
            "autotune_precompile_jobs": jobs,
        }
        kernel = helion.kernel(**{**self._settings, **asked})(self._function)
        bound = kernel.bind(self._args)
        bound.settings.check_autotuning_disabled()
        # What is found is timed once more here; Helion would take 5 s for each of its finalists.
        os.environ.setdefault("HELION_AUTOTUNE_FINAL_REBENCHMARK_TOP_K", "0")
        profile = get_effort_profile(effort)
        options = LFBOTreeSearch.get_kwargs_from_profile(profile, bound.settings)
        search = LFBOTreeSearch(bound, self._args, **options)
        times: dict[str, float] = {}
        known: dict[str, dict[str, Any]] = {}
        measure = search.benchmark_batch

        def noting(*args: Any, **named: Any) -> Any:
            results = measure(*args, **named)
            for result in results:
                if math.isfinite(result.perf):
                    config = self._given(result.config)
                    text = config_id(config)
                    known[text] = config
                    times[text] = min(result.perf, times.get(text, math.inf))
            return results

        search.benchmark_batch = noting
        try:
            best = self._given(search.autotune(skip_cache=True))
        except helion.exc.NoConfigFound:
            return []
        others = {text: known[text] for text in sorted(known, key=times.__getitem__)}
        return list({config_id(best): best, **others}.values())[:most]

    def _given(self, config: Any) -> dict[str, Any]:
        """Return the fields of a Helion config as plain values."""
        return {name: _plain(value) for name, value in dict(config.config).items()}


def _plain(value: Any) -> Any:
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


def run_autotune(
    raw_kernel_func: Callable[..., Any],
    settings: Mapping[str, Any],
    inputs: Sequence[Any],
    autotune_effort: str = "quick",
) -> Any:
    """Search a config for one set of inputs, on their device, with Helion's own autotuner.

    `autotune_effort` is "none", "quick" or "full", as in Helion's settings.
    """
    tuning = {
        "ref_mode": RefMode.OFF,
        "autotune_effort": autotune_effort,
        "autotune_ignore_errors": True,
    }
    kernel = create_helion_decorated_kernel(raw_kernel_func, settings, tuning)
    return kernel.autotune(tuple(inputs))
