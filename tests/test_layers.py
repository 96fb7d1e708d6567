import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_every_module_imports_only_what_stands_below_it():
    command = [
        sys.executable,
        "-c",
        "from importlinter.cli import lint_imports_command; lint_imports_command()",
        "--no-cache",
    ]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
