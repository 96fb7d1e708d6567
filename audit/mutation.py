"""Try mutants of the audited rooms with the tests of each room, and keep what came of every one.

``python -m audit.mutation --sample 150 --workers 2`` tries those of the sample that have no verdict yet: it may be
interrupted at any time and started again. ``--all`` tries every mutant, ``--again --slow`` also those that survived,
with all tests that reach them instead of the quickest.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from audit.mutants import ROOMS, Mutant, lay_out, mutants, sample, sources
from hbanalysis.files import digest
from hbanalysis.folders import PROJECT
from hbanalysis.tables import audited

BUILD = PROJECT / "build" / "audit"
SAMPLE = 150
SEED = 4  # raised once tests were written for survivors, so that the shares never flatter
AT_ONCE = 400  # mutants in one copy of the project
OPEN = ("survived", "unreached")  # a new test may kill these
# Deterministic tests of one process; the slow ones of the full tier take no part.
PLUGINS = ("-p", "audit.trial", "-p", "no:cacheprovider", "-p", "no:xdist")
OPTIONS = ("--tier", "quick", "-q", "--tb=native", "--doctest-modules", "--hypothesis-profile=ci", *PLUGINS)


def main() -> None:
    """Read the command line and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sample", type=int, default=SAMPLE, help="mutants a room, drawn with a fixed seed")
    parser.add_argument("--all", action="store_true", help="every mutant")
    parser.add_argument("--again", action="store_true", help="try survivors once more")
    parser.add_argument("--slow", action="store_true", help="with tests of any length")
    parser.add_argument("--room", action="append", choices=ROOMS, help="only this room; may be repeated")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--names", nargs="*", default=[], help="only these mutants, whatever is known of them")
    chosen = parser.parse_args()
    for room in chosen.room or ROOMS:
        found = mutants(room)
        keep(found, BUILD / f"{room}-fresh.jsonl")  # of a run that was interrupted
        if chosen.names:
            planned = [mutant for mutant in found if mutant.name in chosen.names]
        else:
            drawn = sample(found, None if chosen.all else chosen.sample, SEED)
            known = verdicts(drawn)
            planned = [one for one in drawn if known.get(one.name, "open") in ("open", *(OPEN * chosen.again))]
        print(f"{room}: {len(planned)} of {len(found)} mutants to try", flush=True)
        for first in range(0, len(planned), AT_ONCE):
            try_all(room, planned[first : first + AT_ONCE], chosen.workers, chosen.slow)


def try_all(room: str, planned: list[Mutant], workers: int, slow: bool) -> None:
    """Run the tests of a room on mutants, and add to its results."""
    tree = BUILD / room
    lay_out(tree, room, planned)
    plan, fresh = BUILD / f"{room}-plan.json", BUILD / f"{room}-fresh.jsonl"
    plan.write_text(json.dumps([mutant.name for mutant in planned]), encoding="utf-8")
    reach, states = BUILD / f"{room}-reach.json", BUILD / f"{room}-states.json"
    states.write_text(json.dumps(_states(room)), encoding="utf-8")
    options = [f"--trial-plan={plan}", f"--trial-results={fresh}", f"--trial-reach={reach}", f"--trial-states={states}"]
    options += ["--trial-slow"] if slow else []
    tests = [f"tests/{room}", f"hbanalysis/{room}"]
    command = [sys.executable, "-m", "pytest", *OPTIONS, *options, f"--trial-workers={workers}", *tests]
    environment = {**os.environ, "PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1"}
    subprocess.run(command, cwd=tree, env=environment, check=True)
    keep(planned, fresh)


def keep(found: Iterable[Mutant], fresh: Path) -> None:
    """Move verdicts of a run to the kept ones, with the digest of the function that each belongs to."""
    if not fresh.exists():
        return
    digests = {mutant.name: mutant.digest for mutant in found}
    with (BUILD / "verdicts.jsonl").open("a", encoding="utf-8") as file:
        for line in fresh.read_text(encoding="utf-8").splitlines():
            entry = json.loads(line)
            if entry["name"] in digests:
                file.write(json.dumps({**entry, "digest": digests[entry["name"]]}) + "\n")
    fresh.unlink()


def entries(found: Iterable[Mutant]) -> dict[str, dict]:
    """Return the last result of every mutant that has one and whose function has not changed since."""
    digests = {mutant.name: mutant.digest for mutant in found}
    path = BUILD / "verdicts.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    known = [json.loads(line) for line in lines]
    return {one["name"]: one for one in known if digests.get(one["name"]) == one["digest"]}


def verdicts(found: Iterable[Mutant]) -> dict[str, str]:
    """Return ``killed``, ``survived``, ``unreached``, ``timeout`` or ``crashed`` of every mutant that was tried."""
    return {name: entry["status"] for name, entry in entries(found).items()}


def _states(room: str) -> dict[str, str]:
    """Return a digest for every file with tests of a room: of it and of the room's code. New ones are timed anew."""
    code = [audited.digest(path) for path in sources(room)]
    files = [*sources(room), *sorted((PROJECT / "tests" / room).glob("test_*.py"))]
    return {path.relative_to(PROJECT).as_posix(): digest([*code, audited.digest(path)]) for path in files}


if __name__ == "__main__":
    main()
