"""Claims of the paper tested on rows, by criteria that were fixed before the first row.

The seed is the unit: every effect is computed within a seed, and an interval is Student's over the seeds'
effects. Only rows at the paper's scale decide, and only with as many seeds as the criteria demand; rows of
smaller scales say whether the effect has the same direction there. A trend decides once the smallest and the
largest batch size of the preset are in it. Trainings that did not reach their target loss enter no verdict.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import pandas as pd

from hbanalysis import paper
from hbanalysis.claims.attack_rules import no_difference, survives
from hbanalysis.claims.dynamics_rules import follows_along_training, not_at_a_saddle, up_to_the_whole_set
from hbanalysis.claims.outcomes import (
    NO_VERDICT,
    NOT_REPRODUCED,
    NOT_YET_RUN,
    PARTLY,
    REPRODUCED,
    UNDECIDED,
    direction,
)
from hbanalysis.claims.planned import Asked, asked
from hbanalysis.claims.robust_rules import helps_and_costs, lower_curvature, negative_single_samples
from hbanalysis.claims.scale_rules import scale_free
from hbanalysis.claims.verdict_rules import Measured, Part, accuracy_contrast, larger_spectrum, less_robust
from hbanalysis.errors import InputError, unknown_name
from hbanalysis.store import Row
from hbanalysis.tables.frames import Family, distinct_titles, families, reached
from hbanalysis.trends import Interval

_TESTS: Mapping[str, Callable[[Asked, Sequence[Row]], Measured | None]] = {
    "K1": larger_spectrum,
    "K2": accuracy_contrast,
    "K3": not_at_a_saddle,
    "K4": less_robust,
    "K4 survives": survives,
    "K6": helps_and_costs,
    "K7": lower_curvature,
    "K8": negative_single_samples,
    "K10 SVHN, K1": larger_spectrum,
    "K10 SVHN, K4": less_robust,
    "K10 smooth, K1": larger_spectrum,
    "K10 smooth, K4": less_robust,
    "K11": follows_along_training,
    "K12": up_to_the_whole_set,
    "K13": scale_free,
    "K14": no_difference,
}
# The study whose rows decide a claim, where it is not the one of the batch sizes.
_STUDIES = {
    "K3": "training_dynamics",
    "K4 survives": "robustness_vs_batch",
    "K6": "adversarial_training",
    "K7": "robust_spectrum",
    "K8": "robust_spectrum",
    "K10 smooth, K1": "smooth_activations",
    "K10 smooth, K4": "smooth_activations",
    "K11": "training_dynamics",
    "K12": "training_dynamics",
    "K13": "loss_landscape",
    "K14": "robustness_vs_batch",
}
# A condition of a criterion that is judged by itself, and its claim.
_PART_OF = {"K4 survives": "K4"} | {claim: "K10" for claim in _TESTS if claim.startswith("K10 ")}
_BATCH_SIZES = "spectrum_vs_batch"


def _speaks_to(one: Family, claim_id: str) -> bool:
    """Return whether a family of the batch-size study speaks to a claim: ReLU alone, SVHN to its part of K10."""
    svhn = one.dataset.startswith("svhn")
    return svhn == (claim_id in _PART_OF) and dict(one.setting).get("activation", "relu") == "relu"


@dataclass(frozen=True)
class Verdict:
    """What the rows of one family say about one claim.

    Attributes:
        claim: the claim's id, or that of a part which is judged by itself, such as `K4 survives`.
        family: what was trained; `None` if nothing was.
        scale: scale of the rows; empty if there are none.
        measure: what the effect is.
        effect: its mean over seeds.
        interval: its interval over seeds, `None` with fewer than two seeds.
        n_seeds: seeds that enter.
        criterion: the text that decides.
        parts: the single conditions of the criterion, and whether each is met.
        outcome: reproduced, partly, not reproduced, undecided or not yet run.
        decides: whether these rows may decide: the paper's scale, enough seeds, and the ends of the preset.
        same_direction: "yes", "no", "mixed", or why the rows cannot say.
        remark: what limits the verdict, in words.
    """

    claim: str
    family: Family | None
    scale: str
    measure: str
    effect: float | None
    interval: Interval | None
    n_seeds: int
    criterion: str
    parts: tuple[Part, ...]
    outcome: str
    decides: bool
    same_direction: str
    remark: str


def verdict(claim_id: str, rows: Sequence[Row]) -> Verdict:
    """The verdict on one claim from the rows of one family.

    Args:
        claim_id: `K1` to `K15`, those without a test here are "not yet run"; or a part that is judged by itself:
            `K4 survives`, what the criterion of K4 demands under PGD, and K1 and K4 for SVHN and for smooth
            activations, `K10 SVHN, K1` and so on.
        rows: rows that differ in batch size and seed alone; none is "not yet run".

    Raises:
        InputError: an unknown claim, or rows of more than one family (see `verdicts`).

    Example:
        >>> verdict("K9", []).outcome
        'not yet run'
    """
    found = verdicts(claim_id, rows)
    if len(found) > 1:
        names = "; ".join(f"{one.family.title} ({one.scale})" for one in found if one.family)
        raise InputError(f"A verdict is on one family of rows; given {len(found)}: {names}. Use verdicts().")
    return found[0]


def verdicts(claim_id: str, rows: Sequence[Row]) -> list[Verdict]:
    """The verdicts on one claim, one for each family of rows, largest scale first.

    Raises:
        InputError: an unknown claim.
    """
    criteria = paper.criteria().claims
    if claim_id not in {*criteria, *_PART_OF}:
        raise unknown_name("claim", claim_id, [*criteria, *_PART_OF])
    text = criteria[_PART_OF.get(claim_id, claim_id)].text
    blank = Verdict(claim_id, None, "", "", None, None, 0, text, (), NOT_YET_RUN, False, "", "")
    if claim_id not in _TESTS:
        return [blank]
    study = _STUDIES.get(claim_id, _BATCH_SIZES)
    groups = families(row for row in rows if row.study == study)
    if study == _BATCH_SIZES:
        groups = {one: group for one, group in groups.items() if _speaks_to(one, claim_id)}
    return [_judge(blank, one, group) for one, group in groups.items()] or [blank]


def table(rows: Sequence[Row], claims: Sequence[str] | None = None) -> pd.DataFrame:
    """Verdicts as a table for a page: one line a claim and family.

    Args:
        rows: rows of any number of families.
        claims: ids of the claims; `None` takes those that have a test here and rows of their study, and of the parts
            that are judged by themselves those with rows of their own.

    Raises:
        InputError: an unknown claim.
    """
    lines = []
    titles, deciding = distinct_titles(families(rows)), paper.criteria().rules["deciding_scales"]
    present = {row.study for row in rows}
    if claims is None:
        known = [claim for claim in _TESTS if _STUDIES.get(claim, _BATCH_SIZES) in present]
        claims = [claim for claim in known if claim not in _PART_OF or verdicts(claim, rows)[0].family]
    for claim_id in claims:
        for one in verdicts(claim_id, rows):
            lines.append(
                {
                    "claim": claim_id,
                    "trained": titles[one.family] if one.family else "",
                    "scale": one.scale,
                    "effect": one.measure,
                    "mean": "" if one.effect is None else f"{one.effect:.3g}",
                    "95 % interval": _ends(one.interval),
                    "seeds": one.n_seeds,
                    "verdict": one.outcome if not one.family or one.scale in deciding else NO_VERDICT,
                    "same direction here": one.same_direction,
                    "remark": one.remark,
                }
            )
    return pd.DataFrame(lines)


def parts_table(found: Sequence[Verdict]) -> pd.DataFrame:
    """The single conditions behind verdicts, one line each: what was measured, what is demanded, whether it is met."""
    lines = [
        {
            "claim": one.claim,
            "trained": one.family.title if one.family else "",
            "scale": one.scale,
            "condition": part.name,
            "here": part.value,
            "demanded": part.demanded,
            "met": {True: "yes", False: "no", None: "cannot tell"}[part.met],
        }
        for one in found
        for part in one.parts
    ]
    return pd.DataFrame(lines, columns=["claim", "trained", "scale", "condition", "here", "demanded", "met"])


def _judge(blank: Verdict, one: Family, rows: Sequence[Row]) -> Verdict:
    criteria = paper.criteria()
    wanted = asked(_PART_OF.get(blank.claim, blank.claim), _STUDIES.get(blank.claim, _BATCH_SIZES), one)
    ended = reached(rows)
    lost = len(rows) - len(ended)
    remarks = [f"{lost} trainings did not reach the target loss" if lost else ""]
    deciding = one.scale in criteria.rules["deciding_scales"]
    test = _TESTS[blank.claim](wanted, ended)
    if test is None:
        remarks.append("these rows lack what the criterion compares")
        return replace(blank, family=one, scale=one.scale, same_direction="cannot tell", remark=_joined(remarks))
    enough = len(test.effects) >= wanted.seeds
    if deciding and not enough:
        remarks.append(f"{len(test.effects)} of the {wanted.seeds} seeds that the criterion demands")
    lacking = test.design.lacking if deciding else ()
    if lacking:
        remarks.append(f"B = {', '.join(map(str, lacking))} must be in it, with {wanted.seeds} seeds")
    return replace(
        blank,
        family=one,
        scale=one.scale,
        measure=test.measure,
        effect=test.interval.mean,
        interval=test.interval if test.interval.low is not None else None,
        n_seeds=len(test.effects),
        parts=test.parts,
        outcome=_outcome(test, deciding, enough and not lacking),
        decides=deciding and enough and not lacking,
        same_direction=direction(test.signs),
        remark=_joined([*remarks, test.design.left_out(), test.remark]),
    )


def _outcome(test: Measured, deciding: bool, enough: bool) -> str:
    """Apply the words of the criteria, in their order of strength."""
    if not deciding:
        return NOT_YET_RUN
    if not enough:
        return UNDECIDED
    if test.refuted:
        return NOT_REPRODUCED
    if all(part.met for part in test.parts):
        return REPRODUCED
    if not any(part.met is False for part in test.parts):
        return UNDECIDED
    if all(test.signs):
        return PARTLY
    # Too wide to tell: neither no effect at all nor one as large as the claim's is excluded.
    wide = test.interval.contains(0.0) and (test.size is None or test.interval.contains(test.size))
    return UNDECIDED if wide else NOT_REPRODUCED


def _ends(interval: Interval | None) -> str:
    if interval is None or interval.low is None or interval.high is None:
        return ""
    return f"{interval.low:.3g} to {interval.high:.3g}"


def _joined(remarks: Sequence[str]) -> str:
    return "; ".join(filter(None, remarks))
