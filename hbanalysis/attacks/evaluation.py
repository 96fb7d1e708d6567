"""How well a model stands attacks: accuracy under one, and in the worst case over several."""

from collections.abc import Iterable, Mapping

import torch
from jaxtyping import Bool
from torch import Tensor, nn

from hbanalysis.attacks.batches import Attack, check_images, chunks, numbers_of
from hbanalysis.attacks.gradients import check_logits, logits_of
from hbanalysis.errors import require
from hbanalysis.inputs.logits import Labels
from hbanalysis.operators.guards import differentiation, unwrapped


def still_correct(model: nn.Module, x: Tensor, labels: Labels, *, batch_size: int | None = None) -> Bool[Tensor, " n"]:
    """Return whether each image is classified as its label, in eval mode.

    Args:
        model: Maps images to logits ``(n, c)``; left as it was.
        x: Images ``(n, ...)``, in any range.
        labels: Labels ``(n,)``.
        batch_size: Samples in a forward pass; ``None`` chooses.

    Cost: one forward pass, and a gradient of two samples.

    Raises:
        InputError: See `fgsm`; a model that cannot be differentiated is taken.
        NumericalError: The model's output is not finite.

    Example:
        >>> still_correct(nn.Identity(), torch.eye(2), torch.tensor([0, 0]))
        tensor([ True, False])
    """
    model = unwrapped(model)
    numbers = check_images(model, x, labels, None)
    found = [torch.zeros(0, dtype=torch.bool, device=x.device)]
    with differentiation(model):
        x, numbers = x.clone(), numbers.clone()  # also those made under torch.inference_mode
        for rows in chunks(model, x, batch_size):
            with torch.no_grad():
                logits = logits_of(model, x[rows])
                check_logits(logits, numbers[rows])
                found.append(logits.argmax(1) == numbers[rows])
    return torch.cat(found)


def accuracy_under(model: nn.Module, attack: Attack, x: Tensor, labels: Labels) -> float:
    """Return the fraction of samples that are classified correctly after an attack.

    Args:
        model: The model that is attacked and judged.
        attack: ``(model, x, labels) -> x_adv``, such as ``functools.partial(fgsm, eps=0.1)``.
        x: Images ``(n, ...)``, at least one.
        labels: Labels ``(n,)``.

    Cost: that of the attack and one forward pass.

    Raises:
        InputError: There are no samples, or see the attack.
        NumericalError: The model's output is not finite.

    Example:
        >>> from functools import partial
        >>> from hbanalysis.attacks import fgsm
        >>> x = torch.tensor([[0.6, 0.5], [0.9, 0.1]])
        >>> accuracy_under(nn.Identity(), partial(fgsm, eps=0.2), x, torch.tensor([0, 0]))
        0.5
    """
    numbers = check_images(unwrapped(model), x, labels, None)
    return _fraction(still_correct(model, attack(model, x, numbers), numbers))


def worst_case(
    model: nn.Module, attacks: Iterable[Attack] | Mapping[str, Attack], x: Tensor, labels: Labels
) -> Bool[Tensor, " n"]:
    """Return whether each sample is classified correctly as it is and after every one of several attacks.

    A sample that one attack has broken is not given to the next, so put cheap attacks first. The mean of the result is
    the accuracy in the worst case.

    Args:
        model: The model that is attacked and judged.
        attacks: Callables ``(model, x, labels) -> x_adv``, or a dict of them, as `Reading.attacks` returns.
        x: Images ``(n, ...)``.
        labels: Labels ``(n,)``.

    Cost: at most that of the attacks and a forward pass each.

    Raises:
        InputError: See the attacks.
        NumericalError: The model's output is not finite.

    Example:
        >>> from functools import partial
        >>> from hbanalysis.attacks import fgsm
        >>> x = torch.tensor([[0.6, 0.5], [0.9, 0.1]])
        >>> worst_case(nn.Identity(), [partial(fgsm, eps=e) for e in (0.01, 0.2)], x, torch.tensor([0, 0]))
        tensor([False,  True])
    """
    standing = still_correct(model, x, labels)
    numbers = numbers_of(labels, x)
    for attack in attacks.values() if isinstance(attacks, Mapping) else attacks:
        left = standing.nonzero().flatten()
        if len(left):
            standing[left] = still_correct(model, attack(model, x[left], numbers[left]), numbers[left])
    return standing


def _fraction(correct: Tensor) -> float:
    require(len(correct) > 0, "An accuracy needs at least one sample; given none.")
    return correct.sum().item() / len(correct)
