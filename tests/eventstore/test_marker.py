import asyncio
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


def test_coroutines_wait_for_their_own_positions() -> None:
    marker = Marker()

    async def story() -> list[bool]:
        near, far = (asyncio.create_task(marker.reached(at, 5)) for at in (3, 6))
        await asyncio.sleep(0)
        await asyncio.to_thread(marker.advance, 3)
        assert await near
        assert not far.done()
        await asyncio.to_thread(marker.advance, 9)
        return [await far, await marker.reached(9, 5), await marker.reached(10, 0.01)]

    assert asyncio.run(story()) == [True, True, False]
