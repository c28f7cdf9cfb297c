"""Code compiled in a process: what it is found by, and how its launches are recorded."""

from __future__ import annotations

import threading
import time

import helion
import torch

from kernelpkg.compile import code


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
