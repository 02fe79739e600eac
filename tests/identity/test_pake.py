"""SPAKE2: the same words, other words, and elements that are none."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swarmd.identity.pake import Half, Side
from swarmd.kit.world import SeededEntropy, World, real_world
from swarmd.wire.handshake import ELEMENT_BYTES
from swarmd.wire.noise import KEY_BYTES

WORDS = "7-crossover-clockwork"
P = 2**255 - 19
SMALL_ORDER = (1, P - 1, 0)  # y of the neutral point, of the one of order 2, of those of order 4 (RFC 8032)


def half(side: Side, words: str = WORDS, seed: int = 1) -> Half:
    return Half(side, words, entropy=SeededEntropy(seed))


def test_the_same_words_make_the_same_key_and_others_another_one() -> None:
    keys: list[bytes | None] = []
    for words in (WORDS, "7-crossover-tugboat", "8-crossover-clockwork"):
        guest, inviter = half(Side.GUEST, words), half(Side.INVITER, seed=2)
        assert len(guest.element) == len(inviter.element) == ELEMENT_BYTES
        keys += [guest.psk(inviter.element), inviter.psk(guest.element)]
    assert keys[0] == keys[1]
    assert keys[0] is not None and len(keys[0]) == KEY_BYTES
    assert len(set(keys)) == 5, "with other words both sides have a key, and nobody the other's"


def test_two_exchanges_have_nothing_in_common() -> None:
    world = real_world()
    halves = [Half(Side.INVITER, WORDS, entropy=world.entropy) for _ in range(2)]
    guest = half(Side.GUEST)
    assert halves[0].element != halves[1].element
    assert halves[0].psk(guest.element) != halves[1].psk(guest.element)


def test_ones_own_side_and_ones_own_element_are_refused() -> None:
    for side in Side:
        assert half(side).psk(half(side, seed=2).element) is None
    guest = half(Side.GUEST)
    assert guest.psk(b"B" + guest.element[1:]) is None, "our own, sent back"


@pytest.mark.parametrize("y", SMALL_ORDER)
def test_points_of_small_order_are_refused(y: int) -> None:
    assert half(Side.GUEST).psk(b"B" + y.to_bytes(32, "little")) is None


@settings(max_examples=30, deadline=None)  # each takes 10 ms
@given(element=st.binary(min_size=ELEMENT_BYTES, max_size=ELEMENT_BYTES) | st.binary(max_size=40))
def test_no_bytes_make_it_raise(element: bytes) -> None:
    for head in (b"", b"A"):
        psk = half(Side.INVITER).psk(head + element)
        assert psk is None or len(psk) == KEY_BYTES


def test_the_entropy_of_the_world_is_used(world: World) -> None:
    assert half(Side.GUEST, seed=5).element == half(Side.GUEST, seed=5).element != half(Side.GUEST, seed=6).element
