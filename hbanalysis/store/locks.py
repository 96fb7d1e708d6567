"""One lock file a row key, so that two processes that ask for the same cell compute it once.

The lock is the kernel's (``flock``) on ``<store>/locks/<key>.lock``. A process that dies, however it dies,
releases it; a lock file left behind is therefore never taken for a lock. The file holds the owner's process
id for messages only.
"""

import contextlib
import fcntl
import os
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

from hbanalysis.errors import StoreError


class KeyLock:
    """The lock of one key below a store's root folder.

    Example:
        >>> import tempfile
        >>> folder = tempfile.TemporaryDirectory()
        >>> with KeyLock(folder.name, "0f") as lock:
        ...     KeyLock(folder.name, "0f").acquire(wait=False), lock.held
        (False, True)
        >>> folder.cleanup()
    """

    def __init__(self, root: Path | str, key: str) -> None:
        """Name the lock; nothing is created before `acquire`."""
        self.path = Path(root) / "locks" / f"{key}.lock"
        self._file: int | None = None

    @property
    def held(self) -> bool:
        """Whether this object holds the lock."""
        return self._file is not None

    def acquire(self, *, wait: bool = True, check: Callable[[], None] = lambda: None) -> bool:
        """Take the lock and tell whether it is held now.

        Args:
            wait: Wait for the owner to finish; otherwise give up at once.
            check: Called about five times a second while waiting; may raise to stop waiting.

        Raises:
            StoreError: The store's folder cannot be written.
        """
        while not self.held and not self._try():
            if not wait:
                return False
            check()
            time.sleep(0.2)
        return True

    def release(self) -> None:
        """Give the lock back and remove its file."""
        if self._file is None:
            return
        # Removed while still locked: who waits on this file notices in `_try` that it is no longer the one on
        # disk.
        self.path.unlink(missing_ok=True)
        os.close(self._file)
        self._file = None

    def owner(self) -> int | None:
        """Return the process id written by the last owner, or None."""
        try:
            return int(self.path.read_text())
        except (OSError, ValueError):
            return None

    def _try(self) -> bool:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            file = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise StoreError(
                f"Cannot write {self.path}: {error.strerror}. Name a folder you may write to with --store or "
                "HBANALYSIS_STORE."
            ) from error
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            current = os.stat(self.path).st_ino == os.fstat(file).st_ino
        except (BlockingIOError, FileNotFoundError):
            current = False
        if not current:
            os.close(file)
            return False
        self._file = file
        # On a full disk the lock holds all the same; only messages read the number.
        with contextlib.suppress(OSError):
            os.ftruncate(file, 0)
            os.write(file, str(os.getpid()).encode())
        return True

    def __enter__(self) -> "KeyLock":
        self.acquire()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()
