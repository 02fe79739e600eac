"""The hashes of one shard whose manifest was made before anybody had read its bytes.

A manifest of a model on the hub is made of the file's header, so that others can join in before the data is here. Whoever
then reads a shard of it whole writes down its hashes and signs them: its seal. With it the shard is as good as one that was
cut from a local file, and the seal goes with it from peer to peer. A shard keeps the first seal that a node takes for it.

What a seal is worth is its signer's word that it read these bytes at the source. That word is checked where it can be: a
node that holds all shards of a file compares the whole with the SHA-256 that the hub states.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Final

import msgspec
from blake3 import blake3

from swarmd.domain.ids import ModelId, NodeId, parse_node_id
from swarmd.domain.models import Manifest
from swarmd.domain.refusals import BadFile
from swarmd.models.manifest import PayloadHash, Sign, Verify

SEAL_LIMIT: Final = 4 << 20  # bytes: a shard of 500 GB has 60 k chunks of 67 bytes each
_CONTEXT: Final = b"swarmd seal 1\n"  # a manifest that is signed begins with a brace: one is never taken for the other
_HASH: Final = re.compile(r"[0-9a-f]{64}")
_SIGNATURE: Final = re.compile(r"[0-9a-f]{128}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Seal:
    model: ModelId
    layout: str
    header_blake3: str
    """Of the whole file's header. With the layout it tells a file from others of its name; a manifest that was cut from a
    local file and one that was made of the hub's are of the same file when both agree."""
    index: int
    size_bytes: int
    blake3: str
    chunk_blake3: tuple[str, ...]
    signer: NodeId
    signature: str
    """128 hex digits: the signer's Ed25519 over the canonical form without this field."""


def identity(manifest: Manifest) -> str:
    """64 hex digits over what tells the bytes of this model from all others, as far as its publisher knew: layout, header,
    source, hashes. What has arrived under one identity is not taken for bytes of another."""
    source = b"" if manifest.source is None else msgspec.json.encode(manifest.source, order="sorted")
    hashes = [shard.blake3 for shard in manifest.shards]
    return blake3("\n".join((manifest.layout, manifest.header_blake3, *hashes)).encode() + source).hexdigest()


def make(manifest: Manifest, index: int, payload: PayloadHash, *, signer: NodeId, sign: Sign) -> Seal:
    seal = Seal(
        model=manifest.model, layout=manifest.layout, header_blake3=manifest.header_blake3, index=index,
        size_bytes=payload.size_bytes, blake3=payload.blake3, chunk_blake3=payload.chunk_blake3, signer=signer, signature="",
    )  # fmt: skip
    return replace(seal, signature=sign(_signed_bytes(seal)).hex())


def encode(seal: Seal) -> bytes:
    return msgspec.json.encode(seal, order="sorted")


def decode(data: bytes, *, manifest: Manifest, index: int, verify: Verify) -> Seal | BadFile:
    """A seal of this very shard with a good signature."""
    if len(data) > SEAL_LIMIT:
        return BadFile(what=f"a seal of {len(data)} bytes is larger than the {SEAL_LIMIT} that one may have")
    try:
        seal = msgspec.json.decode(data, type=Seal)
        parse_node_id(seal.signer)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ValueError) as reason:
        return BadFile(what=f"this is no seal: {reason}")
    spec, model = manifest.shards[index], manifest.model
    stated = (seal.model, seal.layout, seal.header_blake3, seal.index, seal.size_bytes)
    if stated != (model, manifest.layout, manifest.header_blake3, index, spec.size_bytes):
        return BadFile(what=f"this is the seal of another shard than {index} of {model}")
    if len(seal.chunk_blake3) != spec.chunk_count or not all(
        _HASH.fullmatch(digits) for digits in (seal.blake3, *seal.chunk_blake3)
    ):
        return BadFile(what=f"the seal of shard {index + 1} of {model} has not one good hash for each chunk")
    if not _SIGNATURE.fullmatch(seal.signature) or not verify(
        seal.signer, _signed_bytes(seal), bytes.fromhex(seal.signature)
    ):
        return BadFile(what=f"the seal of shard {index + 1} of {model} is not signed by the node it names")
    return seal


def with_hashes(manifest: Manifest, index: int, blake3: str, chunk_blake3: tuple[str, ...]) -> Manifest:
    """The manifest with the hashes of one shard filled in, or taken out."""
    shards = list(manifest.shards)
    shards[index] = replace(shards[index], blake3=blake3, chunk_blake3=chunk_blake3)
    return replace(manifest, shards=tuple(shards))


def _signed_bytes(seal: Seal) -> bytes:
    return _CONTEXT + msgspec.json.encode(replace(seal, signature=""), order="sorted")
