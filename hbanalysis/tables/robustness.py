"""Rows of the adversarial studies as tables: accuracies by model and set, beside the paper's Tables 3 and 4."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from hbanalysis import paper
from hbanalysis.lineup import ATTACKS, CONTROL, MODELS, ORIGINAL
from hbanalysis.store import Row
from hbanalysis.tables.frames import Family, families
from hbanalysis.trends import t_interval

COLUMNS = ("clean", *ATTACKS, "mean of attacked")
_PAPER_TABLES = {("M1", "mnist"): "table3", ("C3", "cifar10"): "table4"}
_PAPER_COLUMNS = ("d_clean", "d_fgsm", "d_fgsm10", "d_l2grad", "d_fhsm", "d_l2hess", "mean_adversarial")
_FORMS = {"readings": "plain softmax", "readings_exact_softmax": "exact softmax"}


def paper_matrix(one: Family) -> pd.DataFrame | None:
    """Return the paper's matrix for a network and data set, in percent; None where it has none."""
    name = _PAPER_TABLES.get((one.network, one.dataset))
    if name is None:
        return None
    table = paper.table(name)
    values = table[list(_PAPER_COLUMNS)].to_numpy(dtype=float)
    return pd.DataFrame(values, index=table["model"].str.removeprefix("M_"), columns=list(COLUMNS))


def matrix(rows: Sequence[Row], kind: str = "static") -> pd.DataFrame:
    """Return accuracies in percent, means over the seeds of one family: a line a model, a column a test set.

    Args:
        rows: Rows of `adversarial_training` of one family.
        kind: ``"static"`` for sets crafted once on the original model, ``"white_box"`` for those crafted on the model
            that is judged.
    """
    lines = []
    for name in MODELS:
        clean = [row.values["models"][name]["accuracy_test"] for row in rows]
        attacked = [[row.values[kind][name][attack] for attack in ATTACKS] for row in rows]
        line = [np.mean(clean), *np.mean(attacked, axis=0), np.mean(attacked)]
        lines.append([100 * float(value) for value in line])
    return pd.DataFrame(lines, index=list(MODELS), columns=list(COLUMNS))


def strong(rows: Sequence[Row]) -> pd.DataFrame:
    """Return one line a model: accuracy in percent on clean images, under its own white-box attacks, and under PGD."""
    own = matrix(rows, "white_box")
    table = pd.DataFrame({"clean": own["clean"], "FGSM": own["FGSM"], "FGSM-10": own["FGSM-10"]})
    table["PGD"] = [100 * float(np.mean([row.values["pgd"][name] for row in rows])) for name in MODELS]
    return table


def first_line(rows: Sequence[Row]) -> pd.DataFrame:
    """Return the original model under the attacks, in percent: a line a family, reading and form of the softmax.

    ``distance`` is the root mean square over the five attacks of ours minus the paper's, in points.
    """
    lines: list[dict[str, Any]] = []
    for one, group in families(rows).items():
        theirs = paper_matrix(one)
        for form, name in _FORMS.items():
            for reading in group[0].values[form]:
                found = {a: 100 * float(np.mean([row.values[form][reading][a] for row in group])) for a in ATTACKS}
                line = {"scale": one.scale, "trained": one.title, "reading": reading, "softmax": name, **found}
                if theirs is not None:
                    line["distance"] = float(np.mean([distances(row, theirs, form)[reading] for row in group]))
                lines.append(line)
        if theirs is not None:
            place = {"scale": "paper", "trained": one.whole, "reading": "the paper's table", "softmax": ""}
            lines.append(place | original_line(theirs))
    return pd.DataFrame(lines)


def original_line(theirs: pd.DataFrame) -> dict[str, float]:
    """Return the original model's accuracies under the five attacks from the paper's matrix, in percent."""
    values = theirs.loc[[ORIGINAL], list(ATTACKS)].to_numpy(dtype=float)[0]
    return dict(zip(ATTACKS, map(float, values), strict=True))


def distances(row: Row, theirs: pd.DataFrame, form: str = "readings") -> dict[str, float]:
    """Return for each reading the root mean square of ours minus the paper's, over the five attacks, in points."""
    found = {}
    for reading, accuracies in row.values[form].items():
        gaps = [100 * accuracies[a] - value for a, value in original_line(theirs).items()]
        found[reading] = float(np.sqrt(np.mean(np.square(gaps))))
    return found


def reading_verdict(rows: Sequence[Row]) -> str:
    """Return what the rows of M1 on MNIST at the paper's scale say about the reading, by the rule fixed beforehand."""
    rule = paper.criteria().attack_reading
    groups = families(rows).items()
    deciding = [group for one, group in groups if (one.scale, one.network, one.dataset) == ("paper", "M1", "mnist")]
    chosen = [row for group in deciding for row in group]
    if not chosen:
        return "not yet run"
    theirs = paper_matrix(next(iter(families(chosen))))
    assert theirs is not None
    gaps = [found["H1"] - found["H2"] for found in (distances(row, theirs) for row in chosen)]
    limit, needed = rule["wins_by_points_above"], rule["seeds_at_least"]
    said = ", ".join(f"{gap:+.1f}" for gap in gaps)
    leaning = f"H1's distance from the paper minus H2's, a seed each: {said} points"
    if len(gaps) < needed:
        return f"undecided: {len(gaps)} of the {needed} seeds that the rule demands; {leaning}"
    if all(gap > limit for gap in gaps):
        return f"H2; {leaning}"
    if all(gap < -limit for gap in gaps):
        return f"H1; {leaning}"
    return f"undecided; {leaning}"


def sweep(rows: Iterable[Row]) -> pd.DataFrame:
    """Return accuracies in percent by number of conjugate gradient iterations: a line a row, attack and clipping."""
    lines = []
    for one, group in families(rows).items():
        for row in group:
            for entry in row.values["sweep"]:
                for attack in ("FHSM", "L2HESS"):
                    for clipped in (False, True):
                        lines.append(
                            {
                                "family": one,
                                "scale": one.scale,
                                "seed": row.config["training"]["seed"],
                                "attack": attack,
                                "clipped": clipped,
                                "iterations": entry["iterations"],
                                "accuracy": 100 * entry[f"{attack} clipped" if clipped else attack],
                            }
                        )
    return pd.DataFrame(lines)


def invisible(rows: Sequence[Row]) -> pd.DataFrame:
    """Return one line a family: clean accuracy, loss, and the share of samples whose float32 loss is below rounding."""
    lines = []
    for one, group in families(rows).items():
        clean = pd.DataFrame([row.values["clean"] for row in group]).mean()
        lines.append(
            {
                "scale": one.scale,
                "trained": one.title,
                "seeds": len(group),
                "accuracy_test (%)": 100 * float(clean["accuracy_test"]),
                "loss_train": float(clean["loss_train"]),
                "invisible_train (%)": 100 * float(clean["invisible_train"]),
                "invisible_test (%)": 100 * float(clean["invisible_test"]),
            }
        )
    return pd.DataFrame(lines)


def gains(rows: Sequence[Row]) -> pd.DataFrame:
    """Return what each robust model gains and loses against the control, in points: one line a family and model.

    ``gain`` is on the mean of the five static sets, ``clean`` on clean test images; both have intervals over seeds.
    """
    lines = []
    for one, group in families(rows).items():
        for name in ATTACKS:
            gain = [100 * (attacked_accuracy(row, name) - attacked_accuracy(row, CONTROL)) for row in group]
            over = [100 * (attacked_accuracy(row, name) - attacked_accuracy(row, ORIGINAL)) for row in group]
            clean = [100 * (clean_accuracy(row, name) - clean_accuracy(row, CONTROL)) for row in group]
            lines.append(
                {
                    "scale": one.scale,
                    "trained": one.title,
                    "model": name,
                    "seeds": len(group),
                    "gain over ORI": t_interval(over).text(".2f"),
                    "gain over CLEAN+": t_interval(gain).text(".2f"),
                    "clean minus CLEAN+": t_interval(clean).text(".2f"),
                    "gains in every seed": all(value > 0 for value in gain),
                }
            )
    return pd.DataFrame(lines)


def attacked_accuracy(row: Row, model: str) -> float:
    """Return a model's accuracy on the five static sets, their mean."""
    return float(np.mean([row.values["static"][model][attack] for attack in ATTACKS]))


def clean_accuracy(row: Row, model: str) -> float:
    """Return a model's accuracy on the clean test set."""
    return float(row.values["models"][model]["accuracy_test"])
