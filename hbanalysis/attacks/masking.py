"""Signs that a model hides its gradients, so that weak attacks make it look robust."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor, nn

from hbanalysis.attacks.batches import check_images, chunks
from hbanalysis.attacks.evaluation import accuracy_under, still_correct, worst_case
from hbanalysis.attacks.first_order import fgsm, iterated_fgsm
from hbanalysis.attacks.gradients import gradient, logits_of
from hbanalysis.attacks.projected_gradient import pgd
from hbanalysis.errors import require
from hbanalysis.inputs.logits import Labels
from hbanalysis.operators.guards import differentiation, unwrapped
from hbanalysis.operators.losses import cross_entropy

TINY_LOSS = 2.0**-24  # half the rounding unit of float32 at 1: below it p_y is 1
_MORE = 4  # times as many steps in the attack that shows whether the steps were too few
_SAME = 1e-4  # relative change of logits that is more than rounding


@dataclass(frozen=True)
class MaskingReport:
    """What `masking_report` found; accuracies and shares are fractions of all samples.

    Attributes:
        samples: Number of samples.
        eps: Size of the attacks in the maximum norm.
        clean: Accuracy without attack.
        noise: Accuracy under one random sign a pixel, which uses no gradient.
        fgsm: Accuracy under `fgsm`.
        fgsm_plain: The same with PyTorch's own cross-entropy.
        fgsm_10: Accuracy under `iterated_fgsm` with 10 steps.
        pgd: Accuracy under `pgd` on the margin loss, with restarts.
        pgd_more_steps: Accuracy of the worst case of that and one run with four times as many steps.
        pgd_half_range: The same, and a run with eps of half the range of images, which turns every image grey.
        tiny_losses: Share with a cross-entropy below 6e-8, where float32 takes p_y for 1.
        zero_gradients: Share whose gradient by PyTorch's own cross-entropy is exactly zero.
        repeated_logits: Share with two equal logits, of whatever classes; among many classes some are so by chance.
        flags: What speaks for masked gradients, one sentence each.
    """

    samples: int
    eps: float
    clean: float
    noise: float
    fgsm: float
    fgsm_plain: float
    fgsm_10: float
    pgd: float
    pgd_more_steps: float
    pgd_half_range: float
    tiny_losses: float
    zero_gradients: float
    repeated_logits: float
    flags: tuple[str, ...]

    @property
    def masked(self) -> bool:
        """Whether anything speaks for masked gradients."""
        return bool(self.flags)


@dataclass(frozen=True)
class _Outputs:
    """Shares of samples by what the model returns on clean images, and two properties of the model."""

    tiny_losses: float
    zero_gradients: float
    repeated_logits: float
    ties: float
    random: bool
    probabilities: bool


def masking_report(
    model: nn.Module,
    x: Tensor,
    labels: Labels,
    eps: float | Tensor,
    *,
    clip: tuple[float, float] = (0.0, 1.0),
    steps: int = 50,
    restarts: int = 5,
    seed: int = 0,
    allowed: float = 0.05,
    batch_size: int | None = None,
) -> MaskingReport:
    """Attack a model weakly and strongly, in the maximum norm, and name what speaks for masked gradients.

    A flag is raised where a share of zero gradients or of ties (between the two largest logits, or the label's and
    another), or a difference in accuracy, exceeds ``allowed``: PyTorch's cross-entropy against the exact one; ten steps
    weaker than one; noise stronger than PGD; more steps that still help; images that an eps of half the range does not
    break, although grey images are all classified alike. Outputs that are random, or that are probabilities, are
    flagged as well. No flag is no proof of anything.

    Args:
        model: See `fgsm`.
        x: See `fgsm`; at least one image.
        labels: See `fgsm`.
        eps: Size of the attacks, one number above 0.
        clip: Range of valid images.
        steps: Steps of `pgd`.
        restarts: Its restarts.
        seed: Seed of starts and noise.
        allowed: Share or difference in accuracy that raises no flag, between 0 and 1.
        batch_size: See `fgsm`.

    Cost: 13 input gradients on all samples; ``steps`` a restart on those that stand so far, 8 times ``steps`` on those
    that stand them all.

    Raises:
        InputError: See `fgsm`; no samples, ``eps`` of 0 or more than half the range, ``allowed`` out of range.
        NumericalError: See `fgsm`.

    References:
        Athalye, Carlini and Wagner, ICML 2018; Croce and Hein, ICML 2020, for the kind of checks.

    Example:
        >>> from hbanalysis import networks
        >>> x, y = torch.rand(20, 1, 28, 28), torch.arange(20) % 10
        >>> report = masking_report(networks.build("M1", (1, 28, 28)), x, y, 0.1, steps=5, restarts=1)
        >>> report.zero_gradients, report.repeated_logits
        (0.0, 0.0)
    """
    numbers = check_images(unwrapped(model), x, labels, clip)
    require(len(x) > 0, "A report needs at least one sample; given none.")
    require(clip is not None, "A report needs clip, the range of images, of which it takes half; given None.")
    given = torch.as_tensor(eps, dtype=torch.float64)
    require(given.ndim == 0, f"A report takes one eps for all samples; given shape {tuple(given.shape)}.")
    eps = given.item()
    half = (clip[1] - clip[0]) / 2
    require(0 < eps <= half, f"eps must be above 0 and at most half the range of images, {half:g}; given {eps}.")
    require(restarts >= 1, f"restarts must be at least 1; given {restarts}.")
    require(0 <= allowed < 1, f"allowed is a share, at least 0 and below 1; given {allowed}.")
    outputs = _outputs(unwrapped(model), x, numbers, batch_size)
    one_step = partial(fgsm, eps=eps, clip=clip, batch_size=batch_size)
    ten_steps = partial(iterated_fgsm, eps=eps, clip=clip, batch_size=batch_size)
    strong = partial(pgd, clip=clip, loss="margin", batch_size=batch_size)
    runs = [partial(strong, eps=eps, steps=steps, seed=seed + r, random_start=r > 0) for r in range(restarts)]
    stands = worst_case(model, runs, x, numbers)

    def further(standing: Tensor, size: float, number: int) -> Tensor:
        """Return which samples stand one run more."""
        attack = partial(strong, eps=size, steps=number, seed=seed + restarts)
        left = standing.nonzero().flatten()
        return standing.index_copy(0, left, worst_case(model, [attack], x[left], numbers[left]))

    stands_more = further(stands, eps, _MORE * steps)
    stands_half = further(stands_more, half, _MORE * steps)
    report = MaskingReport(
        samples=len(x),
        eps=eps,
        clean=_mean(still_correct(model, x, numbers, batch_size=batch_size)),
        noise=_mean(still_correct(model, _noisy(x, eps, clip, seed), numbers, batch_size=batch_size)),
        fgsm=accuracy_under(model, one_step, x, numbers),
        fgsm_plain=accuracy_under(model, partial(one_step, softmax="plain"), x, numbers),
        fgsm_10=accuracy_under(model, ten_steps, x, numbers),
        pgd=_mean(stands),
        pgd_more_steps=_mean(stands_more),
        pgd_half_range=_mean(stands_half),
        tiny_losses=outputs.tiny_losses,
        zero_gradients=outputs.zero_gradients,
        repeated_logits=outputs.repeated_logits,
        flags=(),
    )
    # Grey images are one image: an attack that reached them would leave the most frequent label right at best.
    grey = numbers.unique(return_counts=True)[1].max().item() / len(x)
    return replace(report, flags=tuple(_flags(report, outputs, grey, allowed)))


def _flags(report: MaskingReport, outputs: _Outputs, grey: float, allowed: float) -> Iterator[str]:
    def percent(share: float) -> str:
        return f"{100 * share:.1f} %"

    if outputs.random:
        yield "The outputs differ from one forward pass to the next: attacks see another model than they are judged on."
    if outputs.probabilities:
        yield "The outputs are probabilities, not logits: the gradient passes through a second softmax and fades."
    if report.zero_gradients > allowed:
        yield f"The plain gradient is exactly zero for {percent(report.zero_gradients)} of the samples."
    if outputs.ties > allowed:
        yield f"{percent(outputs.ties)} of the samples have equal logits: the two largest, or the label's and another."
    if abs(report.fgsm_plain - report.fgsm) > allowed:
        yield (
            f"FGSM leaves {percent(report.fgsm_plain)} right by PyTorch's cross-entropy and {percent(report.fgsm)} by "
            "the exact one."
        )
    if report.fgsm_10 > report.fgsm + allowed:
        yield f"Ten steps leave {percent(report.fgsm_10)} right, one step {percent(report.fgsm)}."
    if min(report.fgsm, report.pgd) > report.noise + allowed:
        yield f"Noise leaves {percent(report.noise)} right, less than attacks that follow the gradient."
    if report.pgd > report.pgd_more_steps + allowed:
        yield f"More steps help: {percent(report.pgd)} right become {percent(report.pgd_more_steps)}."
    if report.pgd_half_range > grey + allowed:
        yield (
            f"Perturbations that can turn every image grey leave {percent(report.pgd_half_range)} right; grey images "
            f"would leave {percent(grey)} at most."
        )


def _outputs(model: nn.Module, x: Tensor, labels: Tensor, batch_size: int | None) -> _Outputs:
    counts = torch.zeros(4, dtype=torch.int64, device=x.device)
    random, probabilities = False, True
    with differentiation(model):
        x, labels = x.clone(), labels.clone()  # also those made under torch.inference_mode
        for rows in chunks(model, x, batch_size):
            slope, logits = gradient(model, x[rows], labels[rows], "plain", check=True)
            with torch.no_grad():
                again = logits_of(model, x[rows])
            ordered = logits.sort(1).values
            own = logits.gather(1, labels[rows, None])
            found = (
                cross_entropy(logits, labels[rows]) < TINY_LOSS,
                (slope == 0).flatten(1).all(1),
                (ordered[:, 1:] == ordered[:, :-1]).any(1),
                (ordered[:, -1] == ordered[:, -2]) | ((logits == own).sum(1) > 1),
            )
            counts += torch.stack([f.sum() for f in found])
            scale = logits.abs().amax()
            random |= bool((again - logits).abs().amax() > _SAME * scale)
            sums = logits.double().sum(1)
            probabilities &= bool((logits >= 0).all() & ((sums - 1).abs() < _SAME).all())
    tiny, zero, repeated, ties = (counts.double() / len(x)).tolist()
    return _Outputs(tiny, zero, repeated, ties, random, probabilities)


def _noisy(x: Tensor, eps: float, clip: tuple[float, float], seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    signs = 2 * torch.randint(0, 2, x.shape, generator=generator) - 1
    return (x.detach() + eps * signs.to(x)).clamp(*clip)


def _mean(correct: Tensor) -> float:
    return correct.sum().item() / len(correct)
