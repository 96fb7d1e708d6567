"""Adversarial perturbations of images: the paper's five attacks, a strong one to judge them by, and what they tell.

Every attack has the signature ``(model, x, labels, eps, *, clip=(0.0, 1.0), ...) -> x_adv``. Images and ``eps`` are in
units of [0, 1]; a model that normalises its inputs does so itself. Labels are integers in a tensor, list or array.
Models run in eval mode, are given copies of the images, and are left as they were.
"""

from hbanalysis.attacks.batches import Attack
from hbanalysis.attacks.distances import MinimalDistance, minimal_distance
from hbanalysis.attacks.evaluation import accuracy_under, still_correct, worst_case
from hbanalysis.attacks.first_order import fgsm, iterated_fgsm, l2_grad
from hbanalysis.attacks.masking import MaskingReport, masking_report
from hbanalysis.attacks.projected_gradient import pgd
from hbanalysis.attacks.readings import READINGS, Reading
from hbanalysis.attacks.second_order import fhsm, l2_hess, newton_step

__all__ = [
    "READINGS",
    "Attack",
    "MaskingReport",
    "MinimalDistance",
    "Reading",
    "accuracy_under",
    "fgsm",
    "fhsm",
    "iterated_fgsm",
    "l2_grad",
    "l2_hess",
    "masking_report",
    "minimal_distance",
    "newton_step",
    "pgd",
    "still_correct",
    "worst_case",
]
