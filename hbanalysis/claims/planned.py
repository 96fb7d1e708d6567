"""What the paper's scale asks of a family of rows before they decide a claim."""

from dataclasses import dataclass
from functools import cache

from hbanalysis import paper
from hbanalysis.tables.frames import Family, family_of


@dataclass(frozen=True)
class Asked:
    """What a criterion asks of the rows of one family.

    Attributes:
        family: What was trained.
        seeds: How many seeds decide.
        batch_sizes: Those of the study's preset at the paper's scale, in order; none for trainings that it lacks.
    """

    family: Family
    seeds: int
    batch_sizes: tuple[int, ...] = ()


def asked(claim_id: str, study: str, one: Family) -> Asked:
    """Return what a claim's criterion asks of a family of rows of a study."""
    return Asked(one, paper.criteria().seeds_needed(claim_id, one.network), planned(study, one))


@cache
def planned(study: str, one: Family) -> tuple[int, ...]:
    """Return the batch sizes that a study's preset at the paper's scale holds of a family, in order; none if no such.

    Example:
        >>> from hbanalysis import studies
        >>> found = studies.get("spectrum_vs_batch")
        >>> cell = found.cells("paper", network="CR")[0]
        >>> planned(found.name, family_of("paper", found.config(cell)["training"]))
        (64, 128, 256, 512)
    """
    if one.scale != "paper":
        return ()
    from hbanalysis import studies  # presets know their networks, and those torch: smaller scales are judged without

    known = studies.get(study)
    if "paper" not in known.scales:
        return ()
    trainings = [known.config(cell)["training"] for cell in known.cells("paper")]
    return tuple(sorted({int(each["batch_size"]) for each in trainings if family_of("paper", each) == one}))
