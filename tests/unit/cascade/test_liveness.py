from __future__ import annotations

from mediaserver.cascade.liveness import QUIET_SECONDS, STALL_SECONDS, Flow, Liveness


def test_bytes_that_arrive_never_stall() -> None:
    flow = Flow()
    assert not any(flow.observe(now, now * 100, now * 90) for now in range(20))


def test_bytes_that_go_out_and_never_arrive_stall() -> None:
    flow = Flow()
    stalled = [flow.observe(float(now), now * 100, 0) for now in range(8)]
    assert stalled.index(True) == 1 + STALL_SECONDS


def test_nothing_sent_is_no_stall() -> None:
    flow = Flow()
    assert not any(flow.observe(float(now), 500, 500) for now in range(20))


def test_a_flow_that_pauses_is_no_stall() -> None:
    flow = Flow()
    flow.observe(0.0, 100, 100)
    flow.observe(1.0, 200, 190)
    assert not any(flow.observe(float(now), 200, 190) for now in range(2, 20))


def test_the_last_packets_of_a_producer_that_closes_are_no_stall() -> None:
    flow = Flow()
    for now in range(5):
        flow.observe(float(now), now * 100, now * 100)
    assert not flow.observe(5.0, 450, 400)
    assert not any(flow.observe(float(now), 450, 400) for now in range(6, 20))
    assert not flow.observe(20.0, 550, 400), "a new producer's first packets are still on their way"
    assert not any(
        flow.observe(float(now), 450 + (now - 19) * 100, 400 + (now - 20) * 100) for now in range(21, 30)
    )


def test_a_flow_that_breaks_later_stalls() -> None:
    flow = Flow()
    for now in range(10):
        assert not flow.observe(float(now), now * 100, now * 100)
    stalled = [flow.observe(float(now), now * 100, 900) for now in range(10, 20)]
    assert any(stalled)


def test_both_directions_count() -> None:
    for inward in (True, False):
        liveness = Liveness()
        stalled = []
        for now in range(8):
            liveness.own(float(now), 0 if inward else now * 100, 0, 0)
            stalled.append(liveness.other(float(now), now * 100 if inward else 0, 0))
        assert stalled[-1], inward


def test_alone_an_end_is_more_patient_while_it_sends() -> None:
    liveness = Liveness()
    assert not liveness.silent(100.0, sending=False)
    liveness.own(0.0, 0, 0, 10)
    liveness.own(5.0, 0, 0, 20)
    assert not liveness.silent(7.0, sending=False)
    assert liveness.silent(5.0 + STALL_SECONDS, sending=False)
    assert not liveness.silent(5.0 + STALL_SECONDS, sending=True)
    assert liveness.silent(5.0 + QUIET_SECONDS, sending=True)
