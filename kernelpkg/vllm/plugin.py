"""The plugin of vLLM: native ops `torch.ops._C.*` answered by ops of a pack, and given back.

vLLM calls `register` in each of its processes. It lets vLLM's cache of compiled graphs tell apart
what is loaded; what else it does is asked for by KERNELPKG_VLLM_ROUTES, without which it returns at
once. Nothing is imported for that. The rest is the same for Python.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from kernelpkg.vllm.native_ops import NativeOp
    from kernelpkg.vllm.route_counts import RouteReport
    from kernelpkg.vllm.routes import RouteTable

ROUTES_VARIABLE: Final = "KERNELPKG_VLLM_ROUTES"
"""Native ops to answer: "all", or names with or without `_C::`, separated by commas."""

LOGGER: Final = "vllm.kernelpkg"
"""Below vLLM's own logger, so that its handlers and its level apply."""

_TABLES: Final[dict[str, RouteTable]] = {}
"""The table of routes of this process, once it is wanted."""

_FAILED: Final[list[str]] = []
"""Why there could not be one."""


def register() -> None:
    """Install the routes that KERNELPKG_VLLM_ROUTES asks for: the entry point of vLLM.

    May be called any number of times, before and after vLLM's own ops are there. Whatever is
    wrong, it raises nothing, logs one warning, and leaves the native ops alone.
    """
    _tell_graphs_apart()
    words = os.environ.get(ROUTES_VARIABLE, "").strip(" ,")
    if words in ("", "none"):
        return
    try:
        from kernelpkg.packs.read import collector_at_rest

        with collector_at_rest():
            _table().register(words.split(","), ROUTES_VARIABLE, os.environ)
    except Exception as error:
        text = " ".join(f"{type(error).__name__}: {error}".split())
        if text not in _FAILED:
            import logging

            _FAILED.append(text)
            logging.getLogger(LOGGER).warning("no native op of vLLM is routed: %s", text)


def _tell_graphs_apart() -> None:
    """Make what is loaded one of the variables that vLLM keeps compiled graphs by.

    Its cache is one of its own, above PyTorch's, and knows ops by their names alone.
    """
    import sys

    def loaded() -> str:
        graphs = sys.modules.get("kernelpkg.runtime.graphs")
        return "" if graphs is None else str(graphs.mark())

    variables = getattr(sys.modules.get("vllm.envs"), "environment_variables", None)
    if isinstance(variables, dict):
        variables["KERNELPKG_OPS"] = loaded


def install(
    routes: str | Iterable[str],
    *,
    pack: str | None = None,
    root: str | os.PathLike[str] | None = None,
    device_keys: Sequence[str] = ("CUDA",),
    environment: Mapping[str, str] | None = None,
) -> tuple[RouteReport, ...]:
    """Let ops of a pack answer native ops, for tensors of some devices ("CUDA", "CPU").

    Nothing is registered or compiled before the first call that is accepted. Where a native op is
    not there, vLLM's module that defines it is imported; if it still is not, it is looked for again
    at the next `install` or `register`. Routes that this process has already are left as they are,
    if nothing about them has changed, else made anew.

    Args:
        routes: Names of native ops, with or without `_C::`, or "all" routes of the pack.
        pack: The name of the pack, which is found as `kernelpkg.load` finds it.
        root: The directory that holds manifests/, kernels/ and configs/.
        device_keys: The dispatch keys that are overridden, "CUDA" or "CPU".
        environment: Holds the KERNELPKG_ variables; that of the process unless given.

    Returns:
        What became of each route.

    Raises:
        UsageError: The pack, or a route of it, is not there; nothing has changed.
        PackError: The manifest of the pack is broken; nothing has changed.
    """
    from pathlib import Path

    from kernelpkg.packs.read import collector_at_rest

    with collector_at_rest():
        return _table().install(
            [routes] if isinstance(routes, str) else routes,
            pack=pack,
            root=None if root is None else Path(root),
            keys=device_keys,
            environment=os.environ if environment is None else environment,
        )


def revoke(*targets: str) -> tuple[str, ...]:
    """Give native ops back.

    A call that is being made ends as it began. A later `register` leaves them alone.

    Args:
        targets: Names of native ops, with or without `_C::`; all that are routed, without any.

    Returns:
        Those that had not been given back before.

    Raises:
        UsageError: One has no route in this process.
    """
    return _table().revoke(targets) if _TABLES or targets else ()


def report() -> tuple[RouteReport, ...]:
    """Return what became of each route of this process, and of the calls of its native op.

    Returns:
        One report for each route; none where nothing is routed.
    """
    return _table().reports() if _TABLES else ()


def report_text() -> str:
    """Return the report as a table for people.

    Returns:
        A text of several lines, or "no routes".
    """
    from kernelpkg.vllm.routes import report_table

    reports = report()
    return report_table(reports) if reports else "no routes"


def original(target: str) -> NativeOp:
    """Return a native op as a function that goes past every route, now and later.

    Args:
        target: The name of the native op, with or without `_C::`.

    Returns:
        A function of the native op's arguments.

    Raises:
        UsageError: There is no such op.
    """
    return _table().original(target)


def _table() -> RouteTable:
    if not _TABLES:
        import logging

        from kernelpkg.vllm.routes import RouteTable

        table = RouteTable(release=_vllm_release(), logger=logging.getLogger(LOGGER))
        if _TABLES.setdefault("", table) is table:
            from multiprocessing.util import register_after_fork

            _report_at_the_end(table)
            register_after_fork(table, _report_at_the_end)
    return _TABLES[""]


def _vllm_release() -> str | None:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("vllm")
    except PackageNotFoundError:
        return None


def _report_at_the_end(_: RouteTable) -> None:
    """Have the report logged when this process ends; workers that were forked leave out atexit."""
    from multiprocessing.util import Finalize

    Finalize(None, _log_report, exitpriority=0)


def _log_report() -> None:
    """Say at the end of the process who answered the calls, where there are routes."""
    if report():
        import logging

        logging.getLogger(LOGGER).info("who answered the native ops of vLLM:\n%s", report_text())
