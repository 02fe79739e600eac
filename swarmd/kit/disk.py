"""The only file that opens files.

Every method exists twice: a coroutine that works in a thread, so that a slow disk never blocks the loop, and a `*_now`
twin for start-up and for code that already is in a thread. A cancelled coroutine returns at once while its thread
finishes: a cancelled write may or may not have happened. Errors are `OSError`, as the system gives them.

What has its final name is whole: `write_atomic` and `rename` sync the bytes and then the folder.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import errno
import fcntl
import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Generator, Sequence
from pathlib import Path

PRIVATE = 0o600  # keys, tokens, settings with secrets
PARTS_AT_ONCE = 512  # of one system call; IOV_MAX is 1024 wherever we run
WRITE_BYTES = 32 * 1024
"""Of one system call. ext4 takes memory for a file in pages as large as the call, up to 2 MiB. Those above 32 KiB are not
kept for the next who asks (Linux: PAGE_ALLOC_COSTLY_ORDER): they come from memory that a virtual machine may have given back
to its host. 1 GiB in calls of 32 KiB took 0.2 s in every run; in calls of 64 KiB 0.15 to 1.6 s; of 1 MiB 0.8 to 2.7 s."""
SYNC_FILE_RANGE_WRITE = 2  # sync_file_range(2)
BOOT_PATH = Path("/proc/sys/kernel/random/boot_id")


def _find_sync_file_range() -> Callable[[int, int, int, int], int] | None:
    """Python has no name for it, and only Linux has it."""
    try:
        function = ctypes.CDLL(None).sync_file_range
    except (AttributeError, OSError):
        return None
    function.argtypes = (ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint)
    function.restype = ctypes.c_int
    return function


_sync_file_range = _find_sync_file_range()


class TooLarge(OSError):
    """The file is larger than its reader allows."""


class Locked(OSError):
    """Another process holds the lock."""


class Disk:
    """The real disk. Fakes subclass it and override the `*_now` methods."""

    async def read_bytes(self, path: Path, *, limit: int) -> bytes:
        """The whole file. Raises TooLarge when it has more than `limit` bytes."""
        return await asyncio.to_thread(self.read_bytes_now, path, limit=limit)

    def read_bytes_now(self, path: Path, *, limit: int) -> bytes:
        with path.open("rb") as file:
            data = file.read(limit + 1)  # not the reported size: a file can grow, and /proc reports 0
        if len(data) > limit:
            raise TooLarge(errno.EFBIG, f"more than {limit} bytes", str(path))
        return data

    async def write_atomic(self, path: Path, data: bytes | memoryview, *, mode: int = 0o644) -> None:
        """Readers see the old file or the new one, also after a power cut. The folder must exist."""
        await asyncio.to_thread(self.write_atomic_now, path, data, mode=mode)

    def write_atomic_now(self, path: Path, data: bytes | memoryview, *, mode: int = 0o644) -> None:
        descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)  # made with 0600
        temporary = Path(name)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                os.fchmod(file.fileno(), mode)
                os.fsync(file.fileno())
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        self._sync_folder(path.parent)

    async def read_range(self, path: Path, offset: int, size: int) -> bytes:
        """`size` bytes from `offset`, fewer at the end of the file."""
        return await asyncio.to_thread(self.read_range_now, path, offset, size)

    def read_range_now(self, path: Path, offset: int, size: int) -> bytes:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            data = os.pread(descriptor, size, offset)
            if len(data) == size or not data:
                return data
            parts = [data]  # one read returns at most 2 GiB, and may be short
            size -= len(data)
            while size > 0 and (part := os.pread(descriptor, size, offset := offset + len(parts[-1]))):
                parts.append(part)
                size -= len(part)
            return b"".join(parts)
        finally:
            os.close(descriptor)

    async def write_range(self, path: Path, offset: int, data: bytes | memoryview) -> None:
        """Write into the file at `offset`, creating it when absent. Not synced: call `sync` before relying on it."""
        await asyncio.to_thread(self.write_range_now, path, offset, data)

    def write_range_now(self, path: Path, offset: int, data: bytes | memoryview) -> None:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            view = memoryview(data).cast("B")
            while view:
                written = os.pwrite(descriptor, view[:WRITE_BYTES], offset)
                view, offset = view[written:], offset + written
        finally:
            os.close(descriptor)

    def write_parts_now(self, path: Path, offset: int, parts: Sequence[bytes | memoryview]) -> None:
        """As `write_range_now`, of bytes that lie in several places, without joining them."""
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            left = [memoryview(part).cast("B") for part in parts]
            while left:
                written = os.pwritev(descriptor, _portion(left), offset)
                offset += written
                while left and written >= len(left[0]):
                    written -= len(left.pop(0))
                if written:
                    left[0] = left[0][written:]
        finally:
            os.close(descriptor)

    def begin_sync_now(self, path: Path, offset: int, size: int) -> None:
        """The system begins to write these bytes out and nobody waits, so that a `sync` to come has less to do."""
        if _sync_file_range is None:
            return
        descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            _sync_file_range(descriptor, offset, size, SYNC_FILE_RANGE_WRITE)  # it failing is told by the sync
        finally:
            os.close(descriptor)

    async def preallocate(self, path: Path, size: int) -> None:
        """Create or resize the file to `size` bytes and reserve them, so that a full disk fails here and not later."""
        await asyncio.to_thread(self.preallocate_now, path, size)

    def preallocate_now(self, path: Path, size: int) -> None:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            os.ftruncate(descriptor, size)
            if size and hasattr(os, "posix_fallocate"):  # macOS has none: there the size is all we can set
                try:
                    os.posix_fallocate(descriptor, 0, size)
                except OSError as error:
                    if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):  # file systems that cannot reserve
                        raise
        finally:
            os.close(descriptor)

    async def sync(self, path: Path) -> None:
        """Return when the file's bytes are on the disk."""
        await asyncio.to_thread(self.sync_now, path)

    def sync_now(self, path: Path) -> None:
        self._sync(path, os.O_RDONLY)

    async def rename(self, source: Path, target: Path) -> None:
        """Sync `source`, then give it the name `target` (replacing it), durably. Same file system only."""
        await asyncio.to_thread(self.rename_now, source, target)

    def rename_now(self, source: Path, target: Path) -> None:
        if not source.is_dir():
            self.sync_now(source)
        source.replace(target)
        self._sync_folder(target.parent)
        if source.parent != target.parent:
            self._sync_folder(source.parent)

    async def remove(self, path: Path) -> bool:
        """Delete a file. False: it was not there."""
        return await asyncio.to_thread(self.remove_now, path)

    def remove_now(self, path: Path) -> bool:
        try:
            path.unlink()
        except FileNotFoundError:
            return False
        return True

    async def remove_folder(self, path: Path) -> bool:
        """Delete a folder with all that is in it; links are removed, not followed. False: it was not there."""
        return await asyncio.to_thread(self.remove_folder_now, path)

    def remove_folder_now(self, path: Path) -> bool:
        try:
            shutil.rmtree(path)
        except FileNotFoundError:
            return False
        return True

    async def make_folder(self, path: Path, *, mode: int = 0o755) -> None:
        """With its parents; existing is fine (and keeps its mode)."""
        await asyncio.to_thread(self.make_folder_now, path, mode=mode)

    def make_folder_now(self, path: Path, *, mode: int = 0o755) -> None:
        path.mkdir(mode=mode, parents=True, exist_ok=True)

    async def list_folder(self, path: Path) -> list[Path]:
        """What is in the folder, sorted; empty when there is no such folder."""
        return await asyncio.to_thread(self.list_folder_now, path)

    def list_folder_now(self, path: Path) -> list[Path]:
        try:
            return sorted(path.iterdir())
        except FileNotFoundError:
            return []

    async def exists(self, path: Path) -> bool:
        return await asyncio.to_thread(self.exists_now, path)

    def exists_now(self, path: Path) -> bool:
        return path.exists()

    async def size_bytes(self, path: Path) -> int:
        return await asyncio.to_thread(self.size_bytes_now, path)

    def size_bytes_now(self, path: Path) -> int:
        return path.stat().st_size

    async def folder_bytes(self, path: Path) -> int:
        """Sizes of all files below the folder; links are not followed, what vanishes meanwhile is not counted."""
        return await asyncio.to_thread(self.folder_bytes_now, path)

    def folder_bytes_now(self, path: Path) -> int:
        total = 0
        for folder, _, names in os.walk(path):
            for name in names:
                with contextlib.suppress(FileNotFoundError):
                    status = Path(folder, name).lstat()
                    total += status.st_size if stat.S_ISREG(status.st_mode) else 0
        return total

    async def free_bytes(self, path: Path) -> int:
        """Free for this user on the file system of `path`, which need not exist yet."""
        return await asyncio.to_thread(self.free_bytes_now, path)

    def free_bytes_now(self, path: Path) -> int:
        while not path.exists() and path != path.parent:
            path = path.parent
        return shutil.disk_usage(path).free

    def boot_now(self) -> bytes:
        """16 bytes that are another at each start of the machine; zeros where it does not say."""
        try:
            return bytes.fromhex(BOOT_PATH.read_text().strip().replace("-", ""))[:16].ljust(16, b"\0")
        except (OSError, ValueError):
            return bytes(16)

    @contextlib.contextmanager
    def locked(self, path: Path) -> Generator[None]:
        """Hold the lock file for the block, so that one data folder has one daemon. Raises Locked.

        The kernel drops the lock when the process ends, however it ends; the empty file stays.
        """
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, PRIVATE)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise Locked(error.errno, "another process holds the lock", str(path)) from None
            yield
        finally:
            os.close(descriptor)

    def _sync_folder(self, path: Path) -> None:
        self._sync(path, os.O_RDONLY | os.O_DIRECTORY)

    def _sync(self, path: Path, flags: int) -> None:
        descriptor = os.open(path, flags | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _portion(parts: Sequence[memoryview]) -> list[memoryview]:
    """What one system call takes of them."""
    taken: list[memoryview] = []
    room = WRITE_BYTES
    for part in parts[:PARTS_AT_ONCE]:
        taken.append(part[:room])
        room -= len(taken[-1])
        if not room:
            break
    return taken
