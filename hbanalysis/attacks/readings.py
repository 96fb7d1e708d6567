"""The paper's five attacks in the two readings that its text and tables allow.

The paper names the attacks and defines them in a table of its appendix that could not be had. Two reconstructions are
kept side by side; which of them the paper's Table 3 supports is a question to rows, not settled here.
"""

from dataclasses import dataclass
from functools import partial

from hbanalysis.attacks.batches import Attack
from hbanalysis.attacks.first_order import fgsm, iterated_fgsm, l2_grad
from hbanalysis.attacks.geometry import Clip
from hbanalysis.attacks.second_order import fhsm, l2_hess


@dataclass(frozen=True)
class Reading:
    """How the five attacks are meant; ``dataclasses.replace`` gives variants.

    Attributes:
        name: What it is called.
        clips_one_step: Whether FGSM, L2GRAD, FHSM and L2HESS are clamped to the range of images. Equation 2 of the
            paper shows no clamp, the authors' later code has one.
        iterations: Conjugate gradient iterations of FHSM and L2HESS.
        steps: Steps of FGSM-10, which is clamped at each.
        damping: Added to the Hessian's eigenvalues.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> attacks = READINGS["H2"].attacks(eps_inf=0.1, eps_2=2.8)
        >>> list(attacks)
        ['FGSM', 'FGSM-10', 'L2GRAD', 'FHSM', 'L2HESS']
        >>> attacks["FGSM"](nn.Linear(3, 2), torch.zeros(4, 3), torch.zeros(4, dtype=torch.long)).shape
        torch.Size([4, 3])
    """

    name: str
    clips_one_step: bool
    iterations: int
    steps: int = 10
    damping: float = 0.0

    def attacks(
        self,
        eps_inf: float,
        eps_2: float,
        *,
        clip: tuple[float, float] = (0.0, 1.0),
        softmax: str = "relative",
        batch_size: int | None = None,
    ) -> dict[str, Attack]:
        """Return the five attacks by their names in the paper, each a callable ``(model, x, labels) -> x_adv``.

        Args:
            eps_inf: Size of FGSM, FGSM-10 and FHSM; the paper has .1 on MNIST and .02 on CIFAR-10.
            eps_2: Size of L2GRAD and L2HESS; the paper has 2.8 on MNIST and 1.2 on CIFAR-10.
            clip: Range of valid images.
            softmax: See `fgsm`.
            batch_size: See `fgsm`.
        """
        once: Clip = clip if self.clips_one_step else None
        sign, length = (
            partial(attack, clip=once, softmax=softmax, batch_size=batch_size) for attack in (fgsm, l2_grad)
        )
        iterated = partial(iterated_fgsm, clip=clip, steps=self.steps, softmax=softmax, batch_size=batch_size)
        newton_sign, newton_length = (
            partial(
                attack,
                clip=once,
                iterations=self.iterations,
                damping=self.damping,
                softmax=softmax,
                batch_size=batch_size,
            )
            for attack in (fhsm, l2_hess)
        )
        return {
            "FGSM": partial(sign, eps=eps_inf),
            "FGSM-10": partial(iterated, eps=eps_inf),
            "L2GRAD": partial(length, eps=eps_2),
            "FHSM": partial(newton_sign, eps=eps_inf),
            "L2HESS": partial(newton_length, eps=eps_2),
        }


READINGS = {
    "H1": Reading("H1", clips_one_step=True, iterations=3),
    "H2": Reading("H2", clips_one_step=False, iterations=5),
}
