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
    one = Received("alice", "video", "video", offered_at=10.0)
    first = one.begin("p1")
    first.lost = 2
    first.lost = 3
    first.end()
    assert one.ended
    second = one.begin("p1")
    assert (one.lost, one.ended, one.consumers) == (3, False, 2)
    second.lost = 1
    assert one.lost == 4
    first.end()
    assert not one.ended, "a newer one is there"


def test_two_consumers_of_one_producer_bring_each_frame_once() -> None:
    one = Received("alice", "video", "video", offered_at=0.0)
    old, new = one.begin("p1"), one.begin("p1")
    start = (1 << 32) - 3000  # the time stamps come round
    stamps = [(start + 1500 * number) % (1 << 32) for number in range(8)]
    counted = [old.count(0.1, stamps[0]), old.count(0.2, stamps[1]), new.count(0.21, stamps[1])]
    assert counted == [True, True, False]
    assert [new.count(0.3, stamps[2]), old.count(0.31, stamps[2])] == [True, False]
    assert old.count(0.4, stamps[3]), "the older one is ahead for a moment"
    assert not new.count(0.41, stamps[3])
    assert new.count(0.5, stamps[4])
    assert one.frames == 5
    assert new.frames == 4


def test_a_newer_producer_counts_from_its_first_frame() -> None:
    one = Received("alice", "video", "video", offered_at=0.0)
    old, new = one.begin("p1"), one.begin("p2")
    assert old.count(0.1, 100)
    assert new.count(0.15, 7)
    assert not old.count(0.2, 200)
    assert new.count(0.25, 8)
    assert (one.frames, old.frames, new.frames) == (3, 2, 2)


def test_an_older_producer_counts_no_more_though_it_is_offered_again() -> None:
    """Both participants move at a time: the newer attachment is offered the other's older producer, too."""
    one = Received("alice", "video", "video", offered_at=0.0)
    old, new = one.begin("p1"), one.begin("p2")
    again, beside = one.begin("p2"), one.begin("p1")
    assert old.count(0.1, 100)
    assert new.count(0.15, 7)
    assert not beside.count(0.2, 150)
    assert again.count(0.25, 8)


def test_what_is_offered_in_another_order_counts_once_the_rest_has_ended() -> None:
    one = Received("alice", "video", "video", offered_at=0.0)
    new, old = one.begin("p2"), one.begin("p1")
    assert old.count(0.1, 100)
    assert not new.count(0.15, 7)
    old.end()
    assert new.count(0.2, 8)
    assert not one.ended
