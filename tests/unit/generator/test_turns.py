import asyncio

from nanobatch_generator.turns import Turns


class Asker:
    """Some that ask for leave, each answered by hand."""

    def __init__(self, turns: Turns, count: int) -> None:
        self.asking: list[tuple[int, asyncio.Future]] = []
        self.tasks = [asyncio.create_task(self._ask(turns, number)) for number in range(count)]

    async def _ask(self, turns: Turns, number: int) -> None:
        async with turns.turn("b") as turn:
            while True:
                answer = asyncio.get_running_loop().create_future()
                self.asking.append((number, answer))
                if await answer:
                    return turn.given()
                turn.put_off()

    async def answer(self, answers: str = "") -> list[int]:
        """Answer those that ask, the first first: + gives leave, - puts off; returns who asks then."""
        for answer in answers:
            self.asking.pop(0)[1].set_result(answer == "+")
        for _ in range(10):
            await asyncio.sleep(0)
        return [number for number, _ in self.asking]

    async def end(self) -> None:
        for task in self.tasks:
            task.cancel()
        await asyncio.wait(self.tasks)


async def test_each_leave_lets_one_more_ask_and_being_put_off_leaves_one_alone():
    turns = Turns()
    askers = Asker(turns, 20)
    assert await askers.answer() == [0]
    assert await askers.answer("+") == [1, 2]
    assert await askers.answer("++") == [3, 4, 5, 6]
    assert await askers.answer("-+++") == [3, 7, 8, 9]  # three more were let in by their leaves
    assert await askers.answer("----") == [3, 7, 8, 9]
    assert await askers.answer("-") == [7, 8, 9, 3]
    await askers.end()
    assert not turns.are_kept("b")


async def test_who_is_cancelled_while_waiting_takes_nobodys_turn():
    turns = Turns()
    askers = Asker(turns, 4)
    assert await askers.answer() == [0]
    askers.tasks[1].cancel()
    assert await askers.answer() == [0]
    assert await askers.answer("+") == [2, 3]
    askers.tasks[2].cancel()
    await askers.answer()
    assert turns.are_kept("b")
    await askers.end()
    assert not turns.are_kept("b")
