"""What a journal remembers, and of whom it believes it."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarmd.kit.disk import Disk
from swarmd.kit.journal import BlockJournal, block_sum

TAG = bytes(range(32))


class BootedDisk(Disk):
    def __init__(self, boot: bytes = b"0123456789abcdef") -> None:
        self.boot = boot

    def boot_now(self) -> bytes:
        return self.boot


def unasked(_number: int) -> bytes:
    raise AssertionError("nothing is read again within one boot")


def opened(path: Path, *, disk: Disk | None = None, tag: bytes = TAG, size: int = 2500, block: int = 1000) -> BlockJournal:
    return BlockJournal(disk or BootedDisk(), path, tag=tag, size_bytes=size, block_bytes=block)


def test_what_was_recorded_is_there_after_a_kill(tmp_path: Path) -> None:
    journal = opened(tmp_path / "j")
    assert not journal.load_now(unasked) and journal.missing() == [0, 1, 2] and journal.done_bytes == 0
    journal.record_now(2, (b"x" * 500,))
    journal.record_now(0, (b"y" * 400, b"z" * 600))
    again = opened(tmp_path / "j")
    assert again.load_now(unasked) and again.missing() == [1] and again.done_bytes == 1500
    assert again.matches(0, (b"y" * 400 + b"z" * 600,)) and not again.matches(0, (b"y" * 1000,))
    again.forget_now([0, 1])
    assert again.done_bytes == 500
    last = opened(tmp_path / "j")
    assert last.load_now(unasked) and last.missing() == [0, 1]


def test_blocks_behind_each_other_are_recorded_at_once(tmp_path: Path) -> None:
    one, other = opened(tmp_path / "one"), opened(tmp_path / "other")
    data = bytes(range(250)) * 10
    for journal in (one, other):
        journal.load_now(unasked)
        journal.record_now(2, (data[2000:],))
    one.record_all_now(1, memoryview(data)[1000:])
    assert one.missing() == [0] and one.done_bytes == 1500
    other.record_now(1, (data[1000:2000],))
    assert (tmp_path / "one").read_bytes() == (tmp_path / "other").read_bytes()
    with pytest.raises(AssertionError):
        one.record_all_now(1, memoryview(data))


def test_blocks_that_are_recorded_side_by_side_are_all_counted(tmp_path: Path) -> None:
    """Seen: nothing was missing, and fewer bytes than the file has were there; the progress never came to its end."""

    class Interrupted(BlockJournal):
        other: threading.Thread | None = None

        def size(self, number: int) -> int:
            if number == 0 and self.has(0) and self.other is None:  # recorded, and about to be counted
                self.other = threading.Thread(target=self.record_now, args=(1, (b"y" * 1000,)))
                self.other.start()
                self.other.join(0.05)  # or it waits for its turn
            return super().size(number)

    journal = Interrupted(BootedDisk(), tmp_path / "j", tag=TAG, size_bytes=2500, block_bytes=1000)
    journal.load_now(unasked)
    journal.record_now(0, (b"x" * 1000,))
    assert journal.other is not None
    journal.other.join()
    assert journal.missing() == [2] and journal.done_bytes == 2000


@pytest.mark.parametrize("other", [{"tag": bytes(32)}, {"size": 2501}, {"block": 500}])
def test_a_journal_of_something_else_counts_for_nothing(tmp_path: Path, other: dict[str, object]) -> None:
    journal = opened(tmp_path / "j")
    journal.load_now(unasked)
    journal.record_now(0, (b"x" * 1000,))
    assert not opened(tmp_path / "j", **other).load_now(unasked)  # type: ignore[arg-type]


@pytest.mark.parametrize("damage", [b"", b"short", b"x" * 96, b"x" * 10_000])
def test_a_damaged_journal_counts_for_nothing(tmp_path: Path, damage: bytes) -> None:
    (tmp_path / "j").write_bytes(damage)
    journal = opened(tmp_path / "j")
    assert not journal.load_now(unasked) and journal.missing() == [0, 1, 2]
    journal.record_now(1, (b"x" * 1000,))
    assert opened(tmp_path / "j").load_now(unasked)


def test_after_a_power_cut_each_block_is_looked_at(tmp_path: Path) -> None:
    journal = opened(tmp_path / "j")
    journal.load_now(unasked)
    for number in range(3):
        journal.record_now(number, (bytes([number]) * journal.size(number),))

    def read(number: int) -> bytes:
        if number == 1:
            raise OSError("it ends before that")
        return bytes([0]) * journal.size(number)  # block 0 is as it should be, block 2 is not

    again = opened(tmp_path / "j", disk=BootedDisk(b"another boot 16b"))
    assert again.load_now(read) and again.missing() == [1, 2]
    third = opened(tmp_path / "j", disk=BootedDisk(b"another boot 16b"))
    assert third.load_now(unasked) and third.missing() == [1, 2], "what was found out is written down"
    nameless = opened(tmp_path / "j", disk=BootedDisk(bytes(16)))
    assert not nameless.load_now(lambda _: b""), "a machine that does not name its boots is asked every time"


def test_under_other_terms_each_block_is_asked_about_once(tmp_path: Path) -> None:
    """Same bytes, other hashes to check them with: what passed the old ones need not pass the new ones."""
    journal = opened(tmp_path / "j")
    journal.load_now(unasked)
    for number in range(3):
        journal.record_now(number, (bytes(journal.size(number)),))
    other = TAG[:16] + bytes(16)
    again = opened(tmp_path / "j", tag=other)
    assert again.load_now(unasked, lambda: [1]) and again.missing() == [1]
    third = opened(tmp_path / "j", tag=other)
    assert third.load_now(unasked, lambda: [0]) and third.missing() == [1], "these terms it was written under"
    fourth = opened(tmp_path / "j")
    assert not fourth.load_now(unasked) and fourth.missing() == [0, 1, 2], "nobody says what still counts"
    fifth = opened(tmp_path / "j", tag=bytes(16) + TAG[16:])
    assert not fifth.load_now(unasked, list) and fifth.missing() == [0, 1, 2], "of other bytes nothing counts"


@given(st.lists(st.binary(max_size=40), max_size=8))
def test_a_sum_does_not_depend_on_how_the_bytes_lie(parts: list[bytes]) -> None:
    assert block_sum(parts) == block_sum([b"".join(parts)]) != bytes(8)
