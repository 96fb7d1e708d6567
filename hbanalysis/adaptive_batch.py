r"""When to enlarge the batch: a rule on measured curvature, without any model or data (ABSA, Yao et al. 2018).

A training begins with batches of :math:`B_0` samples at a learning rate :math:`\eta_0`. After each epoch the largest
eigenvalue :math:`\lambda` of a sub-sampled Hessian is measured. Once it is small beside its value at the last change,
batch size and learning rate grow together, and the share of images that are attacked shrinks.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from numbers import Integral

from hbanalysis.errors import require

START, CURVATURE, PATIENCE, NONE = "start", "curvature", "patience", ""


@dataclass(frozen=True)
class Stage:
    """What holds for one epoch.

    Attributes:
        ratio: Batch size and learning rate over those at the start.
        share: Share of each batch whose images are attacked, in [0, 1].
        reference: Curvature that the next one is compared with; None before there is one that is a number.
        waited: Epochs measured since the last change.
        cause: Why the batch was enlarged before this epoch: ``"curvature"`` or ``"patience"``; ``"start"`` for the
            first epoch and ``""`` for one that goes on as before.
    """

    ratio: int
    share: float
    reference: float | None = None
    waited: int = 0
    cause: str = START


@dataclass(frozen=True)
class AdaptiveBatch:
    r"""The rule.

    With the ratio :math:`r` of an epoch and :math:`\lambda_{ref}` the curvature at the last change,

    .. math::
        |\lambda| \le |\lambda_{ref}| / \alpha \;\text{ or }\; \kappa \text{ epochs without a change}
        \quad\Rightarrow\quad
        r \leftarrow \min(\beta r, r_{max}), \quad \lambda_{ref} \leftarrow \lambda, \quad
        \gamma \leftarrow \gamma / \beta

    and the batch size is :math:`r B_0`, the learning rate :math:`r \eta_0`. At :math:`r = r_{max}` the share
    :math:`\gamma` becomes 0 and nothing changes any more. The first epoch's curvature is the first reference; later
    ones that are larger do not replace it. What counts is the modulus: a negative curvature has fallen when it is
    nearer to 0, not when it is further below. One that is not a finite number is no fall, and no reference: where it
    would become one, the next number does.

    Attributes:
        limit: :math:`r_{max}`, an integer of at least 1; 1 keeps the batch as it is and attacks no image.
        fall: :math:`\alpha`, above 1.
        growth: :math:`\beta`, an integer of at least 2.
        patience: :math:`\kappa`, epochs, an integer of at least 1.
        share: :math:`\gamma` at the start, in [0, 1]; 0 attacks no image.

    Raises:
        InputError: A value out of its range.

    References:
        Yao, Gholami, Keutzer and Mahoney, arXiv:1810.01021; the defaults of fall, growth, patience and share are those
        of the authors' code. That an enlargement for patience, too, moves the reference is a reading of ours.

    Example:
        Curvature is halved twice, at the second and the fourth epoch:

        >>> rule = AdaptiveBatch(limit=4)
        >>> [stage.ratio for stage in rule.stages([8.0, 4.0, 3.0, 2.0])]
        [1, 1, 2, 2, 4]
    """

    limit: int = 16
    fall: float = 2.0
    growth: int = 2
    patience: int = 10
    share: float = 0.2

    def __post_init__(self) -> None:
        for name, least in (("limit", 1), ("growth", 2), ("patience", 1)):
            given = getattr(self, name)
            fits = isinstance(given, Integral) and int(given) >= least
            require(fits, f"{name} must be an integer of at least {least}; given {given}.")
        require(math.isfinite(self.fall) and self.fall > 1, f"fall must be a finite factor above 1; given {self.fall}.")
        require(0 <= self.share <= 1, f"share must lie in [0, 1]; given {self.share}.")

    @property
    def first(self) -> Stage:
        """The stage of the first epoch."""
        return Stage(1, self.share if self.limit > 1 else 0.0)

    def after(self, stage: Stage, curvature: float) -> Stage:
        """Return the stage of the next epoch.

        Args:
            stage: That of the epoch that has ended.
            curvature: What was measured at its end. One that is not a finite number is no fall.

        Example:
            >>> rule = AdaptiveBatch(limit=16, share=0.2)
            >>> rule.after(Stage(1, 0.2, reference=8.0, waited=3), 4.0)
            Stage(ratio=2, share=0.1, reference=4.0, waited=0, cause='curvature')
        """
        if stage.ratio >= self.limit:
            return Stage(stage.ratio, 0.0, stage.reference, stage.waited + 1, NONE)
        measured = curvature if math.isfinite(curvature) else None
        reference = measured if stage.reference is None else stage.reference
        fallen = measured is not None and stage.reference is not None and self._has_fallen(measured, stage.reference)
        if not fallen and stage.waited + 1 < self.patience:
            return Stage(stage.ratio, stage.share, reference, stage.waited + 1, NONE)
        ratio = min(self.growth * stage.ratio, self.limit)
        share = stage.share / self.growth if ratio < self.limit else 0.0
        return Stage(ratio, share, measured, 0, CURVATURE if fallen else PATIENCE)

    def _has_fallen(self, curvature: float, reference: float) -> bool:
        return abs(curvature) <= abs(reference) / self.fall

    def stages(self, curvatures: Iterable[float]) -> list[Stage]:
        """Return the stage of every epoch so far and of the next one, from the curvatures at the ends of epochs.

        Nothing else decides: whoever keeps the curvatures can go on with an interrupted training.
        """
        found = [self.first]
        for curvature in curvatures:
            found.append(self.after(found[-1], curvature))
        return found
