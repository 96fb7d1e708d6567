"""Rows with known laws, in the schema of `robustness_vs_batch`: what is tested on them has a known answer."""

from collections.abc import Callable, Sequence
from typing import Any

from hbanalysis import studies
from hbanalysis.store import Row

STUDY = studies.get("robustness_vs_batch")


def strength_row(
    batch_size: int,
    seed: int,
    *,
    scale: str = "mnist",
    fgsm: Sequence[float] = (0.6, 0.3),
    ten: float = 0.0,
    ten_train: float | None = None,
    free: float = 0.05,
    pgd: Sequence[float] = (0.4, 0.2),
    hidden: float = 0.1,
    status: str = "reached",
    flags: Sequence[str] = (),
    **training: Any,
) -> Row:
    """One row: FGSM has the accuracies ``fgsm``, ten steps are ``ten`` lower, the exact softmax ``hidden``."""
    (cell,) = STUDY.cells(scale, batch_sizes=[batch_size], seeds=[seed], **training)
    target: dict[str, Any] = {"attacks": [], "masking": []}
    for split in ("train", "test"):
        shares = {"loss": 0.1, "accuracy": 0.99, "tiny_losses": 0.25, "zero_gradients": 0.125}
        target |= {f"{name}_{split}": value for name, value in shares.items()}
    for eps, one, strong in zip(cell.measure.epsilons, fgsm, pgd, strict=False):
        line: dict[str, float] = {"epsilon": eps}
        for split, gap in (("train", ten if ten_train is None else ten_train), ("test", ten)):
            line |= {f"fgsm_{split}": one, f"fgsm_free_{split}": one - free, f"fgsm10_{split}": one - gap}
            line[f"fgsm_exact_{split}"] = one - hidden
        target["attacks"].append(line)
        report = {"samples": 1000, "eps": eps, "clean": 0.99, "noise": 0.98, "fgsm_plain": one, "fgsm": one - hidden}
        report |= {"fgsm_10": one - ten, "pgd": strong, "pgd_more_steps": strong, "pgd_half_range": 0.0}
        report |= {"tiny_losses": 0.25, "zero_gradients": 0.125, "repeated_logits": 0.0, "flags": list(flags)}
        target["masking"].append(report)
    values = {"status": status, "epochs": 9.0, "at_target": None if status == "diverged" else target}
    return Row(STUDY.name, STUDY.scale_of(cell), 1, STUDY.key(cell), STUDY.config(cell), values, {})


def strength_rows(
    batch_sizes: Sequence[int], seeds: Sequence[int], law: Callable[[int, int], dict[str, Any]], **fixed: Any
) -> list[Row]:
    """One row a batch size and seed, with ``law(batch_size, seed)`` as arguments of `strength_row`."""
    return [strength_row(b, s, **law(b, s), **fixed) for b in batch_sizes for s in seeds]
