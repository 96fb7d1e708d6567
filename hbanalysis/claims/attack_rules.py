"""The criteria on attacks as computations on rows of `robustness_vs_batch`: K4 under a strong attack, and K14."""

from collections.abc import Sequence

from hbanalysis import paper
from hbanalysis.claims.planned import Asked
from hbanalysis.claims.verdict_rules import Measured, Part, falling_accuracy
from hbanalysis.store import Row
from hbanalysis.tables.attack_tables import SPLITS
from hbanalysis.tables.designs import Design
from hbanalysis.trends import t_interval


def survives(asked: Asked, rows: Sequence[Row]) -> Measured | None:
    """K4 survives: accuracy under PGD on the margin loss, with restarts, falls with the batch size as under FGSM."""
    design = Design.of(rows, asked.seeds, asked.batch_sizes)
    if len(design.batch_sizes) < 2 or not design.seeds:
        return None
    measure = rows[0].config["measure"]
    attack = f"PGD-{measure['pgd_steps']} ({measure['pgd_restarts']} restarts)"
    return falling_accuracy(design, attack, _under_pgd)


def no_difference(asked: Asked, rows: Sequence[Row]) -> Measured | None:
    """K14: accuracy under FGSM and under FGSM-10 differ by less than 2 points in every cell, on both sets.

    Both are clamped to valid pixels and follow PyTorch's softmax, as FGSM does in the study of batch sizes. The effect
    of a seed is its largest difference.
    """
    if not rows:
        return None
    criteria = paper.criteria()
    limit = criteria.claims["K14"].thresholds["difference_points_below"]
    design = Design.all_of(rows)
    gaps = {cell: _gaps(row) for cell, row in design.cells.items()}
    parts = []
    for key in next(iter(gaps.values())):
        split, eps = key
        (b, s), worst = max(((cell, found[key]) for cell, found in gaps.items()), key=lambda pair: abs(pair[1]))
        parts.append(
            Part(
                f"FGSM minus FGSM-10, {split} set, {eps:g}, points: the largest of {len(gaps)} cells",
                f"{worst:.3g} (B = {b}, seed {s})",
                f"below {limit:g} in size",
                abs(worst) < limit,
            )
        )
    sizes = {*design.batch_sizes, *asked.batch_sizes}
    lacking = len(sizes) * len(design.seeds) - len(gaps)
    if lacking and all(part.met for part in parts):
        parts.append(Part("cells measured", f"all but {lacking}", "every cell", None))
    effects = [
        max(abs(v) for cell, found in gaps.items() if cell[1] == s for v in found.values()) for s in design.seeds
    ]
    above = sum(any(abs(value) >= limit for value in found.values()) for found in gaps.values())
    free = max((abs(value) for row in rows for value in _gaps(row, "fgsm_free").values()), default=0.0)
    return Measured(
        "largest difference between FGSM and FGSM-10 over batch sizes, sizes of the attack and sets, points",
        tuple(effects),
        tuple(effect < limit for effect in effects),
        t_interval(effects, criteria.rules["confidence"]),
        tuple(parts),
        design,
        remark=f"{above} of {len(gaps)} cells at {limit:g} points or more; up to {free:.3g} where FGSM is not clamped",
        refuted=any(part.met is False for part in parts),
    )


def _gaps(row: Row, one_step: str = "fgsm") -> dict[tuple[str, float], float]:
    """FGSM minus FGSM-10 in points, by set and strength."""
    return {
        (split, line["epsilon"]): 100 * (line[f"{one_step}_{split}"] - line[f"fgsm10_{split}"])
        for line in row.values["at_target"]["attacks"]
        for split in SPLITS
    }


def _under_pgd(measured: dict) -> dict[float, float]:
    """Test accuracy under PGD in percent, by strength."""
    return {report["eps"]: 100 * report["pgd"] for report in measured["masking"]}
