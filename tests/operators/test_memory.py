"""How much memory is free, within the limits of control groups."""

import sys

import torch

from hbanalysis import memory


def groups(folder, limit, names=("memory.max", "memory.current", "memory.stat"), prefix=""):
    for name, text in zip(names, (limit, 700, f"anon 500\n{prefix}inactive_file 150"), strict=True):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(f"{text}\n")
    return folder


def old(folder):
    (folder / "old").mkdir()
    return folder / "old"


OLD = [f"memory/memory.{name}" for name in ("limit_in_bytes", "usage_in_bytes", "stat")]


def test_a_limit_of_the_container_counts(tmp_path, monkeypatch):
    for folder in (groups(tmp_path, 1000), groups(old(tmp_path), 1000, OLD, "total_")):
        monkeypatch.setattr(memory, "_GROUPS", folder)
        assert memory.available(torch.device("cpu")) == 450


def test_no_limit_leaves_what_the_machine_has(tmp_path):
    assert memory._room(groups(tmp_path, "max")) == sys.maxsize
    assert memory._room(tmp_path / "missing") == sys.maxsize
