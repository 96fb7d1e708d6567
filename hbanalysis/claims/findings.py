"""All findings beside the paper's claims, made from the published rows and from the committed measurements."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from hbanalysis.claims import attack_findings, mode_findings, weight_findings
from hbanalysis.claims.finding import Finding, Line
from hbanalysis.store import Row
from hbanalysis.tables import measured
from hbanalysis.tables.frames import Family

# Each in the order of the page, with the study whose rows it is made of.
_OF_ROWS: tuple[tuple[str, Callable[[Sequence[Row]], Finding | None]], ...] = (
    ("learning_rate_factorial", weight_findings.ratio_and_curvature),
    ("learning_rate_factorial", weight_findings.ratio_and_robustness),
    ("training_dynamics", weight_findings.what_is_equal),
    ("training_dynamics", weight_findings.along_training),
    ("batch_statistics", mode_findings.eval_and_train),
    ("robust_spectrum", weight_findings.robust_curvature),
    ("absa", weight_findings.growing_batches),
    ("attack_readings", attack_findings.readings),
    ("attack_readings", attack_findings.rounding),
    ("robustness_vs_batch", attack_findings.strong_attack),
    ("input_curvature", attack_findings.input_predictors),
)
BENCHMARKS = ("m1_5000", "c1_2000")
# The methods compared, by what the benchmark calls them.
_METHODS = {
    "hbanalysis auto, check=False": "screened",
    "hbanalysis auto": "screened, and searched for missing ones",
    "double backward + eigsh, fewest": "ARPACK at its best setting",
}


def findings(rows: Iterable[Row], benchmarks: Iterable[Mapping[str, Any]] = ()) -> list[Finding]:
    """Return what the rows and measurements say, in the order of the page; what they cannot say is left out.

    Args:
        rows: Rows of any studies.
        benchmarks: Committed measurements of `BENCHMARKS`, see `measured.results`.

    Example:
        >>> findings([])
        []
    """
    given = list(rows)
    found = [make([row for row in given if row.study == study]) for study, make in _OF_ROWS]
    return [one for one in [*found, krylov_floor(list(benchmarks))] if one is not None]


def krylov_floor(results: Sequence[Mapping[str, Any]]) -> Finding | None:
    """Return products for the 20 largest eigenvalues over the fewest that any Krylov method can do with."""
    lines, commands = [], []
    for result in results:
        network = result["network"]
        setting = (("train_samples", network["samples"]),)
        place = Family("paper", network["network"], network["dataset"], setting).title
        right = {m["name"]: m for m in result["methods"] if m["status"] == "run" and m["right"] == len(m["values"])}
        for name, label in _METHODS.items():
            if name in right:
                lines.append(Line(place, label, (right[name]["products"] / result["krylov_floor"],)))
        commands.append(f"python -m benchmarks.large {network['network']} --cache FOLDER --out FILE")
    screened = [line for line in lines if line.label == _METHODS["hbanalysis auto, check=False"]]
    if not screened:
        return None
    below = all(line.values[0] < 1 for line in screened)
    said = "; ".join(f"{line.values[0]:.2f} for {line.where}" for line in screened)
    searched = [line for line in lines if line.label == _METHODS["hbanalysis auto"]]
    costs = ", ".join(f"{line.values[0]:.2f}" for line in searched)
    return Finding(
        "krylov-floor",
        f"Twenty eigenvalues {'for fewer' if below else 'take no fewer'} products than any Krylov method needs",
        "In a trained network few samples still carry curvature. Leaving the work to them takes, in products with the "
        f"whole set over the fewest that any Krylov method from the same start can do with: {said}; {costs} with a "
        "search for missing ones. All twenty values are right to 1e-4.",
        "products over the Krylov floor",
        tuple(lines),
        "02_curvature_engine",
        tuple(commands),
        reference=1.0,
        form=".2f",
        unit="run",
    )


def committed() -> list[Mapping[str, Any]]:
    """Return the committed measurements that `findings` takes."""
    return [measured.results(name) for name in BENCHMARKS]
