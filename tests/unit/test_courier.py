"""What is sent through a middleware: one message after the other, however long each takes."""

from __future__ import annotations

import asyncio
import time

from django_eventstream.hold import Hold
from django_eventstream.hub.courier import Courier
from tests.unit.test_convoy import offer, until
from tests.unit.test_hub import in_a_loop


@in_a_loop
async def test_a_client_that_takes_its_time_gets_what_comes_meanwhile(log, hub):
    goes_on, taken = asyncio.Event(), []

    async def send(message) -> None:
        await goes_on.wait()
        taken.append(message["body"])

    courier = Courier(send)
    hold = Hold(
        reliable=("a",),
        unreliable=(),
        cursor=None,
        user_id=None,
        authorized_at=time.monotonic(),
        authorize=lambda: None,
    )
    courier.connection = hub.join(hold, courier)
    await until(lambda: courier.connection.is_busy)
    for number in "123":
        offer(log, hub, data=number)
        await asyncio.sleep(0)
    goes_on.set()
    await until(lambda: b"data: 3" in b"".join(taken))
    assert not courier.ended.done()
    hub.leave(courier.connection)
    await courier.finish()
