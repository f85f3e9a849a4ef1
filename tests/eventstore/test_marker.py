import threading

from eventstore.marker import Marker


def test_a_marker_only_grows() -> None:
    marker = Marker()
    marker.advance(5)
    marker.advance(3)
    assert marker.value == 5


def test_a_thread_waits_until_the_position_is_reached() -> None:
    marker = Marker()
    timer = threading.Timer(0.05, marker.advance, [7])
    timer.start()
    assert marker.wait(7, 5)
    assert not marker.wait(8, 0.01)
