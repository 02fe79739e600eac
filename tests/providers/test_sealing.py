"""Sealed keys open for whom they were sealed, and for nothing else."""

from __future__ import annotations

from swarmd.identity.keys import NodeKey
from swarmd.kit.world import seeded_world
from swarmd.providers.sealing import USE, Seal


def seal(seed: int) -> Seal:
    return Seal(NodeKey(bytes([seed]) * 32).sealing_key(USE), entropy=seeded_world(1).entropy)


def test_what_is_sealed_opens_again() -> None:
    one = seal(1)
    sealed = one.closed("sk-secret", about="openai")
    assert b"sk-secret" not in sealed
    assert one.opened(sealed, about="openai") == "sk-secret"
    assert sealed != one.closed("sk-secret", about="openai"), "each time under another nonce"


def test_nobody_else_opens_it() -> None:
    sealed = seal(1).closed("sk-secret", about="openai")
    assert seal(2).opened(sealed, about="openai") is None
    assert seal(1).opened(sealed, about="groq") is None
    assert seal(1).opened(sealed[:-1] + bytes([sealed[-1] ^ 1]), about="openai") is None
    for short in (b"", sealed[:5], sealed[:12]):
        assert seal(1).opened(short, about="openai") is None


def test_uses_have_keys_of_their_own() -> None:
    key = NodeKey(bytes([1]) * 32)
    assert len({key.sealing_key("a"), key.sealing_key("b"), bytes([1]) * 32, key.static_private}) == 4
