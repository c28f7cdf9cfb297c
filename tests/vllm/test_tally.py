"""Counts of calls, and the table of them."""

from __future__ import annotations

import threading

from kernelpkg.vllm.tally import RouteReport, Tally, table


def test_reading_a_tally_does_not_count():
    """What a tally has come to is read as often as one likes."""
    tally = Tally()
    for _ in range(3):
        tally.add()
    assert (tally.value, tally.value) == (3, 3)


def test_no_count_is_lost_between_threads():
    """Threads that count at once count all."""
    tally = Tally()
    threads = [
        threading.Thread(target=lambda: [tally.add() for _ in range(10_000)]) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert tally.value == 80_000


def test_table():
    """Each reason stands on its own line, below that of the status."""
    reports = [
        RouteReport(target="_C::a", op="demo::a", status="routed", ours=7),
        RouteReport(
            target="_C::bb",
            op="demo::b",
            status="off",
            reason="revoked",
            ours=1,
            native={"'n <= 4' does not hold": 20, "an argument requires grad": 3},
        ),
    ]
    assert table(reports) == (
        "native op  op       status  ours  native  why\n"
        "_C::a      demo::a  routed  7     0\n"
        "_C::bb     demo::b  off     1     23      revoked\n"
        "                                          20 'n <= 4' does not hold\n"
        "                                          3 an argument requires grad"
    )
