"""The criterion of K6, adversarial training helps and costs clean accuracy, as a computation on rows."""

from collections.abc import Sequence

from hbanalysis import paper
from hbanalysis.frames import Family
from hbanalysis.robustness import attacked_accuracy, clean_accuracy, shown
from hbanalysis.store import Row
from hbanalysis.studies.robust_config import ATTACKS, CONTROL, ORIGINAL
from hbanalysis.trends import t_interval
from hbanalysis.verdict_rules import Design, Measured, Part


def helps_and_costs(one: Family, rows: Sequence[Row], seeds_needed: int) -> Measured | None:
    """K6: every robust model gains on the static sets, and loses clean accuracy as the paper says.

    The criterion does not name the model against which the gain is counted; it is demanded against the original one and
    against the control.
    """
    limits = paper.criteria().claims["K6"].thresholds
    cells = {(row.config["training"]["batch_size"], row.config["training"]["seed"]): row for row in rows}
    if not cells:
        return None
    sizes = tuple(sorted({size for size, _ in cells}))
    design = Design(sizes, tuple(sorted(seed for _, seed in cells)), cells)
    ordered = [cells[key] for key in sorted(cells, key=lambda key: key[1])]
    parts = []
    for reference in (ORIGINAL, CONTROL):
        least = [min(_gain(row, name, reference) for name in ATTACKS) for row in ordered]
        parts.append(
            Part(
                f"smallest gain of the five models over {reference}, mean of the static sets, points",
                ", ".join(f"{value:.3g}" for value in least),
                f"> {limits['gain_above']:g} in every seed",
                all(value > limits["gain_above"] for value in least),
            )
        )
    parts += _clean_parts(one, ordered)
    effects = [min(_gain(row, name, CONTROL) for name in ATTACKS) for row in ordered]
    interval = t_interval(effects, paper.criteria().rules["confidence"])
    return Measured(
        f"smallest gain of the five models over {CONTROL}, points",
        tuple(effects),
        tuple(value > 0 for value in effects),
        interval,
        tuple(parts),
        design,
        remark=f"sets crafted on {ORIGINAL}; under attacks on the models themselves see the page",
    )


def _clean_parts(one: Family, rows: Sequence[Row]) -> list[Part]:
    """What the criterion demands of the clean accuracy on this data set, a condition a model."""
    limits = paper.criteria().claims["K6"].thresholds
    above, within = (limits[name].get(one.dataset) for name in ("clean_loss_points_above", "clean_loss_points_within"))
    parts = []
    for name in ATTACKS:
        losses = [100 * (clean_accuracy(row, CONTROL) - clean_accuracy(row, name)) for row in rows]
        mean = t_interval(losses)
        if above is not None:
            demanded, met = f"> {above:g}", mean.mean > above
        elif within is not None:
            demanded, met = f"within {within:g}", abs(mean.mean) <= within
        else:
            continue
        parts.append(Part(f"clean accuracy of {CONTROL} minus {name}, points", shown(mean), demanded, met))
    return parts


def _gain(row: Row, model: str, reference: str) -> float:
    return 100 * (attacked_accuracy(row, model) - attacked_accuracy(row, reference))
