"""Every claim at a glance: the paper's words, what the rows say at its scale, the verdict, smaller scales beside it.

The front page of the book shows all of it, the README its short form; both are made from the published rows.
"""

import os
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from hbanalysis import paper, studies
from hbanalysis.claims import factorial, input_verdicts, verdicts
from hbanalysis.claims.outcomes import NOT_REPRODUCED, NOT_YET_RUN
from hbanalysis.errors import StoreError
from hbanalysis.files import write_atomically
from hbanalysis.folders import PROJECT
from hbanalysis.store import PUBLISHED_VARIABLE, Row, published
from hbanalysis.tables.frames import scale_order
from hbanalysis.tables.input_tables import weight_curvatures

NOTEBOOKS, README = PROJECT / "notebooks", PROJECT / "README.md"
BEGIN, END = "<!-- claims: made by hbanalysis publish -->", "<!-- end of claims -->"
_PARTS = {"survives": "under PGD"}  # what readers call a part
_SILENT = "cannot tell"  # a direction that rows of a small scale do not have


@dataclass(frozen=True)
class Standing:
    """Where one claim stands.

    Attributes:
        claim: The claim.
        found: What was measured at the paper's scale, one text a network; empty where nothing was.
        outcome: The verdict, one a network where they differ.
        elsewhere: Whether smaller scales show the same direction, by scale.
        study: Computes the rows that decide; empty where the claim has no study and page yet.
    """

    claim: paper.Claim
    found: tuple[str, ...]
    outcome: str
    elsewhere: tuple[str, ...]
    study: str


def _weight_table(rows: Sequence[Row]) -> pd.DataFrame:
    # Study by study, so that families are told apart within a study only.
    names = sorted({row.study for row in rows})
    found = [verdicts.table([row for row in rows if row.study == name]) for name in names]
    return pd.concat(found) if found else pd.DataFrame()


def _input_table(rows: Sequence[Row]) -> pd.DataFrame:
    inputs, weights, single = (
        [row for row in rows if row.study == name] for name in ("input_curvature", "spectrum_vs_batch", "saddle_free")
    )
    return input_verdicts.table(inputs, weight_curvatures(weights), single)


def _factorial_table(rows: Sequence[Row]) -> pd.DataFrame:
    """The second verdict on a claim about the batch size: what remains at a fixed ratio to the learning rate."""
    found = factorial.table([row for row in rows if row.study == "learning_rate_factorial"])
    lines = []
    for line in found.to_dict("records"):
        text = f"effect of log B on {line['effect of log B on']} at fixed lr / B: {line['at fixed lr / B']}"
        lines.append(
            line | {"trained": f"{line['trained']}, fixed lr / B", "found": text, "same direction here": line["here"]}
        )
    return pd.DataFrame(lines)


# Each returns lines with claim, trained, scale, seeds, verdict, "same direction here", and what was found.
_TABLES: tuple[Callable[[Sequence[Row]], pd.DataFrame], ...] = (
    _weight_table,
    _input_table,
    _factorial_table,
)


def standings(rows: Iterable[Row]) -> list[Standing]:
    """Return where each of the paper's claims stands on these rows, in the paper's order.

    Example:
        >>> standings([])[0].outcome
        'not yet run'
    """
    given = list(rows)
    lines = [line for table in _TABLES for line in table(given).to_dict("records")]
    # A condition that is judged by itself is named after its claim, "K4 survives", and stands behind it.
    ordered = sorted(lines, key=lambda line: " " in line["claim"])
    return [_standing(claim, [o for o in ordered if o["claim"].split()[0] == claim.id]) for claim in paper.claims()]


def summary(found: Sequence[Standing]) -> str:
    """Return in a sentence how many claims stand where.

    Example:
        >>> summary(standings([]))
        'Of the 15 claims 15 not yet run.'
    """
    counts = Counter(one.outcome if ":" not in one.outcome else "different from network to network" for one in found)
    return f"Of the {len(found)} claims {', '.join(f'{count} {outcome}' for outcome, count in counts.most_common())}."


def markdown(found: Sequence[Standing], link: Callable[[paper.Claim], str]) -> str:
    """Return the table as Markdown; ``link`` gives the reference to a claim's page."""
    head = ["claim, and where the paper makes it", "here, at the paper's scale", "verdict", "smaller scales"]
    head.append("page and command")
    lines = [head, ["---"] * len(head)]
    for one in found:
        lines.append(
            [
                f"**{one.claim.id}** {one.claim.short} *({one.claim.where})*",
                "; ".join(one.found) or "–",
                one.outcome,
                "; ".join(one.elsewhere) or "–",
                f"{link(one.claim)} {_commands(one)}" if one.study else "–",
            ]
        )
    return _lines(lines)


def short_markdown(found: Sequence[Standing]) -> str:
    """Return the README's table: one measured text a claim, and a link to the notebook."""
    head = ["claim", "here, at the paper's scale", "verdict", "page"]
    lines = [head, ["---"] * len(head)]
    for one in found:
        page = f"[{one.claim.page.partition('_')[0]}](notebooks/{one.claim.page}.ipynb)" if one.study else "–"
        lines.append([f"**{one.claim.id}** {one.claim.short}", _first(one.found) or "–", one.outcome, page])
    return _lines(lines)


def update_readme(path: Path, found: Sequence[Standing]) -> bool:
    """Write the table between the two marks of a README; return whether that changed the file.

    Raises:
        StoreError: The file has no such marks.
    """
    text = path.read_text(encoding="utf-8")
    try:
        before, rest = text.split(BEGIN)
        _, after = rest.split(END)
    except ValueError:
        raise StoreError(f"{path} needs the lines {BEGIN!r} and {END!r} once each, where the table goes.") from None
    changed = f"{before}{BEGIN}\n{short_markdown(found)}\n{END}{after}"
    if changed != text:
        write_atomically(path, changed)
    return changed != text


def refresh_readme() -> bool:
    """Bring the project's README up to its published rows; rows published elsewhere and other installs leave it."""
    if os.environ.get(PUBLISHED_VARIABLE) or not README.is_file():
        return False
    return update_readme(README, standings(published().rows()))


def _lines(lines: Iterable[Sequence[str]]) -> str:
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def _commands(one: Standing) -> str:
    """What computes the rows that decide a claim and its parts."""
    return " ".join(f"`hbanalysis run {study} --scale paper`" for study in (one.study, *one.claim.also))


def _first(found: Sequence[str]) -> str:
    """The first part of the first of several findings, and how many more there are."""
    if not found:
        return ""
    first = found[0].partition(";")[0]
    return first if len(found) == 1 else f"{first} (and {len(found) - 1} more)"


def _part(line: dict) -> str:
    """Which part of its claim a line is about, as words to set behind what was trained; empty where it is the whole."""
    part = line["claim"].partition(" ")[2]
    return f", {_PARTS.get(part, part)}" if part else ""


def _standing(claim: paper.Claim, lines: Sequence[dict]) -> Standing:
    criteria = paper.criteria()
    # A claim that one exception refutes is decided at any scale.
    scales = criteria.rules["deciding_scales"]
    deciding = [line for line in lines if line["scale"] in scales or line["verdict"] == NOT_REPRODUCED]
    outcomes = {line["trained"] + _part(line): line["verdict"] for line in deciding}
    if len(set(outcomes.values())) > 1:
        outcome = "; ".join(f"{name}: {verdict}" for name, verdict in outcomes.items())
    else:
        outcome = next(iter(outcomes.values()), NOT_YET_RUN)
    others: dict[str, set[str]] = {}
    for line in sorted(lines, key=lambda line: scale_order(line["scale"])):
        direction = line["same direction here"]
        if line["scale"] and line not in deciding and direction and direction != _SILENT:
            ratio = ", fixed lr / B" if line["trained"].endswith("fixed lr / B") else ""
            where = line["scale"] + _part(line) + ratio
            others.setdefault(where, set()).add(direction)
    known = claim.study in studies.names() and (NOTEBOOKS / f"{claim.page}.ipynb").is_file()
    return Standing(
        claim,
        tuple(f"{line['trained']}{_part(line)}: {_found(line)}" for line in deciding),
        outcome,
        tuple(
            f"{scale}: {directions.pop() if len(directions) == 1 else 'mixed'}" for scale, directions in others.items()
        ),
        claim.study if known else "",
    )


def _found(line: dict) -> str:
    """What one line of a verdict table says, with its seeds."""
    if "found" in line:
        said = line["found"]
    else:
        interval = f" ({line['95 % interval']})" if line["95 % interval"] else ""
        said = f"{line['effect']} {line['mean']}{interval}"
    return f"{said}, {line['seeds']} seed" + ("" if line["seeds"] == 1 else "s")
