"""Who gives signs of life, who listens for them, and who is given up."""

from __future__ import annotations

import asyncio

import pytest

from swarmd.inference.signs import ALIVE_S, LATE_S, LOOK_S, SILENCE_S, Listener, Teller


@pytest.mark.looptime
async def test_signs_come_twice_a_second_until_nobody_hears_them() -> None:
    loop = asyncio.get_running_loop()
    told: list[float] = []

    def tell() -> bool:
        told.append(loop.time())
        return len(told) < 4

    began = loop.time()
    Teller(tell)
    await asyncio.sleep(10 * ALIVE_S)
    assert told == pytest.approx([began + number * ALIVE_S for number in range(4)])


@pytest.mark.looptime
async def test_who_stops_gives_no_further_sign() -> None:
    told: list[None] = []
    teller = Teller(lambda: told.append(None) is None)
    await asyncio.sleep(2.5 * ALIVE_S)
    teller.stop()
    teller.stop()
    await asyncio.sleep(10 * ALIVE_S)
    assert len(told) == 3


@pytest.mark.looptime
async def test_the_silent_are_given_up_once_and_those_who_are_heard_are_not() -> None:
    loop = asyncio.get_running_loop()
    given_up: list[float] = []
    listener = Listener(loop.time, given_up.append)
    for _ in range(20):
        await asyncio.sleep(ALIVE_S)
        listener.heard()
    assert not given_up
    await asyncio.sleep(10 * SILENCE_S)
    assert len(given_up) == 1 and SILENCE_S < given_up[0] <= SILENCE_S + LOOK_S


@pytest.mark.looptime
async def test_who_stopped_listening_gives_nobody_up() -> None:
    given_up: list[float] = []
    Listener(asyncio.get_running_loop().time, given_up.append).stop()
    await asyncio.sleep(10 * SILENCE_S)
    assert not given_up


@pytest.mark.looptime
async def test_who_was_held_up_itself_gives_others_a_new_term() -> None:
    loop, held = asyncio.get_running_loop(), 0.0
    given_up: list[float] = []
    Listener(lambda: loop.time() + held, given_up.append)
    await asyncio.sleep(SILENCE_S / 2)
    held = SILENCE_S + LATE_S
    await asyncio.sleep(SILENCE_S)
    assert not given_up
    await asyncio.sleep(SILENCE_S)
    assert len(given_up) == 1
