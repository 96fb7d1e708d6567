"""The Snakefile: cells as jobs of several at once, found again by the next run, and pages run on their rows."""

import os
import subprocess
from pathlib import Path

import pytest

from hbanalysis import studies
from hbanalysis.store import Store
from tests.flow_rows import PROJECT, STUDY

SNAKEMAKE = PROJECT / ".venv-snakemake" / "bin" / "snakemake"


def snakemake(folder: Path, *words: str) -> str:
    """Run the workflow at scale tiny in a folder, with a command ``hbanalysis`` of this checkout."""
    command = folder / "hbanalysis"
    command.write_text(
        f'#!/bin/sh\nexec "{PROJECT}/.venv/bin/python" -c "from hbanalysis.cli import main; main()" "$@"\n'
    )
    command.chmod(0o755)
    config = ["--config", "scale=tiny", f"studies={STUDY}", f"hbanalysis={command}"]
    run = subprocess.run(
        [str(SNAKEMAKE), "-s", str(PROJECT / "Snakefile"), "--cores", "2", *words, *config],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(PROJECT), "XDG_CACHE_HOME": str(folder / "cache")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    return run.stdout + run.stderr


@pytest.mark.full
@pytest.mark.skipif(not SNAKEMAKE.exists(), reason="no .venv-snakemake")
def test_the_workflow_computes_every_cell_once(tmp_path):
    study = studies.get(STUDY)
    keys = sorted(study.key(cell) for cell in study.cells("tiny"))
    assert "cell" in snakemake(tmp_path)
    rows = Store(tmp_path / "results" / "store").rows(STUDY)
    assert sorted(row.key for row in rows) == keys
    Path(tmp_path / "results" / "store" / "rows" / STUDY / f"{keys[0]}.json").unlink()
    snakemake(tmp_path)
    again = {row.key: row for row in Store(tmp_path / "results" / "store").rows(STUDY)}
    kept = {row.key: row for row in rows}
    assert sorted(again) == keys
    assert again[keys[1]] == kept[keys[1]] and again[keys[0]].values == kept[keys[0]].values


@pytest.mark.full
@pytest.mark.skipif(not SNAKEMAKE.exists(), reason="no .venv-snakemake")
def test_a_page_waits_for_its_rows(tmp_path):
    listed = snakemake(tmp_path, "--dry-run", "pages")
    assert "rule page" in listed and listed.count("rule cell") == len(studies.get(STUDY).cells("tiny"))
