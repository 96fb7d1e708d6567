"""Directive ``audited``: the committed report of ``make audit``, marked stale where a covered file has changed."""

from docutils import nodes
from page_tables import markdown
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from hbanalysis.tables import audited


def page(found: dict, stale: list[str]) -> str:
    """Return the section as Markdown."""
    mutation = found["mutation"]
    versions = mutation["versions"]
    parts = [_warning(stale)] if stale else []
    parts.append(
        f"Measured on {mutation['date']} at commit `{mutation['commit']}` with mutmut {versions['mutmut']}, Python "
        f"{versions['python']} and PyTorch {versions['torch']}. Where fewer mutants were tried than there are, those "
        f"are a simple random sample, drawn with seed {mutation['seed']} when all tests had been written: none was "
        "written for it. The interval is that of Clopper and Pearson. Each was tried with the quickest tests of its "
        f"room that reach its function, each of at most {mutation['slowest_test_seconds']:g} seconds and "
        f"{mutation['tests_seconds']:g} together, and with all of them where it survived these. A mutant "
        "that never comes to an end is noticed as well."
    )
    parts.append(markdown(audited.rooms(found)))
    left = audited.survivors(found)
    if left:
        parts.append(markdown(audited.kinds(found)))
        lines = "\n".join(
            f"- `{one['file']}`, line {one['line']}, {_code(one['before'])} became {_code(one['after'])}: {one['why']}"
            for one in left
        )
        parts.append(f":::{{dropdown}} The {len(left)} survivors, each with its reason\n{lines}\n:::")
    parts.append(_coverage(found["coverage"]) if found["coverage"] else "**Coverage** has not been measured yet.")
    if found["memory"]:
        parts.append(_memory(found["memory"]))
    if found["weaknesses"]:
        parts.append(_weaknesses(found["weaknesses"]))
    return "\n\n".join(parts)


def _warning(stale: list[str]) -> str:
    listed = ", ".join(f"`{name}`" for name in stale)
    return (
        ":::{warning}\n**Stale.** These files have changed since the audit, so its numbers are those of an earlier "
        f"state: {listed}. `make audit` brings them up to date.\n:::"
    )


def _coverage(found: dict) -> str:
    (lines, all_lines), (branches, all_branches) = found["lines"], found["branches"]
    text = (
        f"**Coverage.** The tests ({found['tests']}) run {lines:,} of {all_lines:,} lines "
        f"({100 * lines / all_lines:.1f} %) and {branches:,} of {all_branches:,} branches "
        f"({100 * branches / all_branches:.1f} %); measured on {found['date']} at commit `{found['commit']}`, "
        f"Python {found['versions']['python']}, PyTorch {found['versions']['torch']}."
    )
    apart = "; ".join(f"`{one['file']}` ({one['why']})" for one in found["on_cuda_only"])
    return f"{text} Not counted, since they run on a CUDA device only: {apart}." if apart else text


def _memory(found: dict) -> str:
    runs = "; ".join(
        f"{name}: {run['growth_mb']:+.1f} MB in the last nine tenths of {run['count']:,} {run['unit']}s"
        for name, run in found["runs"].items()
    )
    return f"**Memory of long runs** ({found['date']}, commit `{found['commit']}`). Resident memory changed by: {runs}."


def _weaknesses(found: dict) -> str:
    asked, answered, known = found["asked"], found["answered"], found["known"]
    text = (
        f"**Known weaknesses** ({found['date']}, commit `{found['commit']}`). pip-audit asked about all {asked} "
        f"packages of `constraints.txt` and was answered for {answered}"
    )
    if not answered:
        return f"{text}: its service was not within reach where the audit ran, so nothing is shown here."
    return f"{text}: {', '.join(f'`{one}`' for one in known) or 'no weakness of these is known'}."


def _code(text: str) -> str:
    return f"`` {text} ``" if text else "nothing"


class Audited(SphinxDirective):
    """The report as a section's content."""

    def run(self) -> list[nodes.Node]:
        """Return the nodes; the page is read at every build, since any covered file may have changed."""
        self.env.note_reread()
        found = audited.report()
        return self.parse_text_to_nodes(page(found, audited.stale_files(found)))


def setup(app: Sphinx) -> dict[str, object]:
    """Register with Sphinx."""
    app.add_directive("audited", Audited)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
