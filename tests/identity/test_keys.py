"""Key files and signatures."""

from __future__ import annotations

import logging
import stat
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from swarmd.domain.ids import NodeId
from swarmd.identity.keys import (
    KeyFileError,
    NetworkKey,
    NodeKey,
    Signed,
    ensure_network_key,
    ensure_node_key,
    read_network_key,
    verify,
)
from swarmd.kit.disk import Disk
from swarmd.kit.world import seeded_world

# RFC 8032, section 7.1, test 1
SEED = bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")
PUBLIC = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"


def test_the_node_id_is_the_ed25519_public_key() -> None:
    assert NodeKey(SEED).node == PUBLIC
    assert NetworkKey(SEED).network == PUBLIC


def test_the_static_key_is_another_secret_and_proven_by_the_node_key() -> None:
    key = NodeKey(SEED)
    assert key.static_private != SEED
    assert X25519PrivateKey.from_private_bytes(key.static_private).public_key().public_bytes_raw() == key.static_public
    assert verify(key.node, Signed.STATIC_KEY, key.static_public, key.static_signature)
    assert not verify(key.node, Signed.STATIC_KEY, bytes(32), key.static_signature)


def test_the_static_key_stays_the_same_over_releases() -> None:
    assert NodeKey(SEED).static_private.hex() == "29b953ddf6260b78b57c96e266a4b7b1e78eb8cad94ef0719197fc2cdc4c4976"


def test_a_signature_for_one_use_is_worth_nothing_in_another() -> None:
    key = NodeKey(SEED)
    signature = key.sign(Signed.MANIFEST, b"text")
    assert verify(key.node, Signed.MANIFEST, b"text", signature)
    assert not verify(key.node, Signed.CERTIFICATE, b"text", signature)
    assert not verify(NodeKey(bytes(32)).node, Signed.MANIFEST, b"text", signature)


@pytest.mark.parametrize("signer", ["", "zz", "00" * 31, "00" * 33, "ff" * 32])
@pytest.mark.parametrize("signature", [b"", bytes(63), bytes(64), bytes(65)])
def test_nonsense_is_not_a_signature(signer: str, signature: bytes) -> None:
    assert not verify(NodeId(signer), Signed.MANIFEST, b"", signature)


def test_a_key_does_not_print_its_secret() -> None:
    assert SEED.hex() not in repr(NodeKey(SEED)) + repr(NetworkKey(SEED)) + str(NodeKey(SEED))


async def test_the_key_is_made_once_and_is_the_owners_alone(tmp_path: Path) -> None:
    path = tmp_path / "identity.key"
    first = await ensure_node_key(path, disk=Disk(), entropy=seeded_world(1).entropy)
    text = path.read_bytes()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    again = await ensure_node_key(path, disk=Disk(), entropy=seeded_world(2).entropy)
    assert again.node == first.node
    assert path.read_bytes() == text
    assert len(text) == 65
    assert text.endswith(b"\n")


async def test_the_network_key_is_there_only_after_founding(tmp_path: Path) -> None:
    path = tmp_path / "network.key"
    assert await read_network_key(path, disk=Disk()) is None
    made = await ensure_network_key(path, disk=Disk(), entropy=seeded_world(1).entropy)
    read = await read_network_key(path, disk=Disk())
    assert read is not None
    assert read.network == made.network


async def test_a_key_that_others_can_read_is_closed_to_them_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "identity.key"
    path.write_bytes(SEED.hex().encode())
    path.chmod(0o644)
    with caplog.at_level(logging.WARNING):
        key = await ensure_node_key(path, disk=Disk(), entropy=seeded_world(1).entropy)
    assert key.node == PUBLIC
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert "could be read by other users" in caplog.text


@pytest.mark.parametrize(
    "content",
    [b"", b"\n", SEED, SEED.hex().encode()[:-1], SEED.hex().upper().encode(), SEED.hex().encode() + b"\n\n", b"a" * 10_000],
)
async def test_a_damaged_key_is_an_error_and_stays_as_it_is(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "identity.key"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(KeyFileError, match=r"identity\.key is damaged"):
        await ensure_node_key(path, disk=Disk(), entropy=seeded_world(1).entropy)
    assert path.read_bytes() == content


async def test_a_link_or_a_folder_is_not_a_key(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    for name in ("folder", "link"):
        with pytest.raises(KeyFileError, match="not a regular file"):
            await ensure_node_key(tmp_path / name, disk=Disk(), entropy=seeded_world(1).entropy)
    assert not (tmp_path / "elsewhere").exists()
