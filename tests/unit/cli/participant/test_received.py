from mafalda_operator.cli.participant import Received


def received() -> Received:
    found = Received("alice", "video", "video", offered_at=10.0)
    found.begin()
    return found


def test_nothing_yet() -> None:
    one = received()
    assert one.time_to_first_frame() is None
    assert one.rate(20.0) == 0.0
    assert one.gap(20.0) == 0.0


def test_frames_rate_and_gaps() -> None:
    one = received()
    for number in range(30):
        one.count(11.0 + number / 15, 320, 240)
    assert one.frames == 30
    assert 14 < one.rate(13.0) < 16
    assert one.time_to_first_frame() == 1.0
    assert one.time_to_first_frame(10.5) == 0.5
    assert round(one.longest_gap, 3) == round(1 / 15, 3)
    assert round(one.gap(14.0), 3) == round(14.0 - (11.0 + 29 / 15), 3)
    assert one.rate(30.0) == 0.0


def test_a_gap_can_be_measured_anew() -> None:
    one = received()
    one.count(11.0)
    one.count(15.0)
    one.reset_gap(20.0)
    one.count(20.5)
    assert one.longest_gap == 0.5


def test_loss_adds_up_over_consumers() -> None:
    one = received()
    one.set_lost(2)
    one.set_lost(3)
    one.ended = True
    one.begin()
    assert (one.lost, one.ended, one.consumers) == (3, False, 2)
    one.set_lost(1)
    assert one.lost == 4
