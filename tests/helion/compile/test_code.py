"""Code compiled in a process: what it is found by, and how its launches are recorded."""

from __future__ import annotations

import threading
import time
from types import SimpleNamespace

import helion
import torch

from kernelpkg.compile import code
from kernelpkg.compile.helion import Selection


def test_kernels_are_recorded_one_at_a_time():
    """What stands in for a function of Helion is taken back, whichever thread ends last."""
    before = helion.runtime.get_num_sm
    started, wrong = threading.Barrier(4), list[object]()

    def host(x, *, _launcher):
        for _ in range(50):
            seen = helion.runtime.get_num_sm
            time.sleep(0)
            wrong.extend([seen] if helion.runtime.get_num_sm is not seen else [])
        _launcher("k", (1,), x)

    def work():
        started.wait()
        for _ in range(20):
            code._recorded_call(host, (torch.ones(4),), torch.device("cpu"))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert helion.runtime.get_num_sm is before


CPU = torch.device("cpu")


class Configured:
    """What stands for Helion: `later` are the sizes that a config makes exact once it has code."""

    def __init__(self, later=()):
        self.bound, self.later = [], later

    def bind(self, args, *, far):
        self.bound.append(args[0].size(0))
        return SimpleNamespace(size=args[0].size(0), exact={})

    def host_part(self, bound, selection):
        if selection.config_id in self.later:
            bound.exact = {0: (True, False)}
        return lambda: (bound.size, selection.config_id)


def plain(monkeypatch):
    """Have what is bound say itself what is exact, and take no facts for granted."""
    monkeypatch.setattr(code, "exact_of", lambda bound: bound.exact)
    monkeypatch.setattr(code, "facts_of", lambda bound: {})


def test_configs_share_what_helion_binds(monkeypatch):
    """Most of what Helion takes is binding, which knows no config: once for each class."""
    plain(monkeypatch)
    configured = Configured()
    compiled = code.CompiledCode(configured)
    found = [
        compiled._find((torch.ones(size),), Selection(config_id=config, config=None), CPU).host()
        for config in ("one", "two")
        for size in (5, 7, 1)
    ]
    assert found == [(5, "one")] * 2 + [(1, "one")] + [(5, "two")] * 2 + [(1, "two")]
    assert (configured.bound, compiled.compiled_count()) == ([5, 1], 4)


def test_what_was_bound_to_another_size_is_not_used_where_that_is_exact(monkeypatch):
    plain(monkeypatch)
    configured = Configured(later=("two",))
    compiled = code.CompiledCode(configured)
    found = [
        compiled._find((torch.ones(size),), Selection(config_id=config, config=None), CPU).host()
        for size, config in ((5, "one"), (7, "two"), (5, "two"), (7, "one"))
    ]
    assert found == [(5, "one"), (7, "two"), (5, "two"), (7, "one")]
    assert configured.bound == [5, 7, 5]


def test_calls_of_which_something_else_is_true_have_code_of_their_own(monkeypatch):
    """What was bound to one column is not used for three, of the same class but for that."""
    monkeypatch.setattr(code, "exact_of", lambda bound: {})
    monkeypatch.setattr(code, "facts_of", lambda bound: {"a0.shape[0] == 2": bound.size == 2})
    configured = Configured()
    compiled = code.CompiledCode(configured)
    found = [
        compiled._find((torch.ones(size),), Selection(config_id="one", config=None), CPU).host()[0]
        for size in (2, 6, 9, 2)
    ]
    assert found == [2, 6, 6, 2]
    assert configured.bound == [2, 6]  # the first is not bound again once its fact is known


def test_gpus_of_another_architecture_have_code_of_their_own(monkeypatch):
    plain(monkeypatch)
    configured = Configured()
    compiled = code.CompiledCode(configured)
    for arch in ("sm_90", "sm_80", "sm_90"):
        monkeypatch.setattr(code, "arch_of", lambda device, arch=arch: arch)
        compiled._find((torch.ones(5),), Selection(config_id="one", config=None), CPU)
    assert (configured.bound, compiled.compiled_count()) == ([5, 5], 2)
