import subprocess
import sys
from pathlib import Path

import pytest

from hbanalysis.errors import StoreError
from hbanalysis.store.locks import KeyLock

HOLD = """
import sys, time
from hbanalysis.store.locks import KeyLock
KeyLock(sys.argv[1], "k").acquire()
print("held", flush=True)
time.sleep(60)
"""


def hold(root: Path) -> "subprocess.Popen[str]":
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(root)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_a_living_owner_keeps_others_out_and_a_killed_one_does_not(tmp_path: Path):
    lock = KeyLock(tmp_path, "k")
    with hold(tmp_path) as owner:
        assert not lock.acquire(wait=False)
        assert lock.owner() == owner.pid
        assert KeyLock(tmp_path, "other").acquire(wait=False)
        owner.kill()
        owner.wait()
        assert lock.path.exists()
        assert lock.acquire(wait=False)
    lock.release()
    assert not lock.path.exists()


def test_a_file_left_by_a_dead_process_is_no_lock(tmp_path: Path):
    lock = KeyLock(tmp_path, "k")
    lock.path.parent.mkdir()
    lock.path.write_text("999999999")
    assert lock.acquire(wait=False)


def test_acquiring_twice_does_not_wait_for_oneself(tmp_path: Path):
    lock = KeyLock(tmp_path, "k")
    assert lock.acquire()
    with lock:
        assert lock.held
    assert not lock.held


def test_waiting_can_be_stopped(tmp_path: Path):
    def stop() -> None:
        raise KeyboardInterrupt

    with KeyLock(tmp_path, "k"), pytest.raises(KeyboardInterrupt):
        KeyLock(tmp_path, "k").acquire(check=stop)


def test_a_folder_that_cannot_be_written_is_named():
    with pytest.raises(StoreError, match=r"/dev/null/store/locks/k\.lock"):
        KeyLock("/dev/null/store", "k").acquire()
