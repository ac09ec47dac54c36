"""What waits for a lab that does not read: its newest task, and no more."""

from __future__ import annotations

import asyncio

from common.link_pb2 import Farewell, Task, ToLab
from server.link_service import LabStream


async def read(stream: LabStream) -> list[ToLab]:
    return [message async for message in stream.messages()]


def test_only_the_newest_task_waits() -> None:
    async def scenario() -> list[ToLab]:
        stream = LabStream()
        for number in range(100):
            stream.send(Task(message_id=str(number)))
        stream.close(Farewell(reason=Farewell.FINISHED))
        await asyncio.sleep(0)
        return await asyncio.wait_for(read(stream), 5)

    task, farewell = asyncio.run(scenario())
    assert task.task.message_id == "99"
    assert farewell.farewell.reason == Farewell.FINISHED


def test_tasks_come_one_after_the_other_until_the_lab_is_gone() -> None:
    async def scenario() -> list[str]:
        stream, got = LabStream(), []
        stream.send(Task(message_id="0"))

        async def listen() -> None:
            async for message in stream.messages():
                got.append(message.task.message_id)
                if len(got) < 3:
                    stream.send(Task(message_id=str(len(got))))
                else:
                    stream.end()

        await asyncio.wait_for(listen(), 5)
        return got

    assert asyncio.run(scenario()) == ["0", "1", "2"]
