"""Named losses with right second derivatives, also on samples that a network has long learned.

A `Loss` knows two things of a data set: the loss of each sample, and what each sample adds to the divisor of the mean.
For most losses that is 1 a sample; for token losses it is the number of tokens that count.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn import functional as F

from hbanalysis.errors import InputError, require, unknown_name
from hbanalysis.operators import structures

PerSampleLoss = Callable[[Any, Any], Tensor]
IGNORED = -100  # PyTorch's default label of a token that does not count


def cross_entropy(logits: Float[Tensor, "n c"], labels: Int64[Tensor, " n"]) -> Float[Tensor, " n"]:
    r"""Return the cross-entropy of each sample, from logits relative to the label.

    .. math:: \ell = \log\Bigl(1 + \sum_{k \ne y} e^{z_k - z_y}\Bigr)

    In float32 the textbook form ``logsumexp(z) - z_y`` loses all digits of the curvature once 1 - p_y falls below the
    rounding unit; here value, gradient and curvature keep their relative precision however small 1 - p_y is.

    Example:
        >>> cross_entropy(torch.tensor([[0.0, 30.0]]), torch.tensor([1])).item() > 9e-14
        True
    """
    relative = logits - logits.gather(1, labels[:, None])
    is_label = labels[:, None] == torch.arange(logits.shape[1], device=logits.device)
    others = torch.logsumexp(relative.masked_fill(is_label, -torch.inf), dim=1)
    # log(1 + e^s) with softplus taken at -|s|: its second derivative p (1 - p) then never subtracts from 1.
    return torch.where(others > 0, others + F.softplus(-others), F.softplus(others))


def binary_cross_entropy(logits: Float[Tensor, " n"], targets: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
    r"""Return the cross-entropy of one logit a sample against targets between 0 and 1.

    .. math:: \ell = \log(1 + e^z) - t z

    Precise in float32 at any confidence, as `cross_entropy` is.

    Example:
        >>> binary_cross_entropy(torch.tensor([0.0, 30.0]), torch.tensor([0.0, 1.0])) > 0
        tensor([True, True])
    """
    positive = logits > 0
    tail = torch.where(positive, F.softplus(-logits), F.softplus(logits))
    # For t = 1 the two linear terms cancel exactly and the gradient keeps the digits of 1 - p.
    return torch.where(positive, (1 - targets) * logits, -targets * logits) + tail


def squared_error(outputs: Float[Tensor, "n ..."], targets: Tensor) -> Float[Tensor, " n"]:
    """Return ``sum_k (z_k - t_k)^2`` of each sample; integer targets ``(n,)`` count as one-hot vectors.

    Raises:
        InputError: Outputs and targets do not have the same shape.

    Example:
        >>> squared_error(torch.tensor([[1.0, 0.0]]), torch.tensor([0]))
        tensor([0.])
    """
    if _are_classes(outputs, targets):
        targets = F.one_hot(targets.long(), outputs.shape[1])
    if targets.shape != outputs.shape and targets.numel() == outputs.numel():
        targets = targets.reshape(outputs.shape)  # (n,) against (n, 1)
    require(
        targets.shape == outputs.shape,
        f"squared_error compares outputs {tuple(outputs.shape)} with targets {tuple(targets.shape)}; give targets of "
        "the same shape, or integer class labels (n,).",
    )
    return (outputs - targets.to(outputs.dtype)).square().flatten(1).sum(1)


def _are_classes(outputs: Tensor, targets: Tensor) -> bool:
    return not targets.is_floating_point() and targets.ndim == 1 and outputs.ndim == 2 and outputs.shape[1] > 1


class Loss:
    """The loss of each sample and its share of the divisor; this base class wraps a plain per-sample callable.

    Attributes:
        relative: Whether this is the cross-entropy from logits relative to the label, whose curvature scales with
            1 - p_y (see `CrossEntropy.doubts`).
        whole: Whether it takes all that a model returns, and targets of any form; else it is given the logits of the
            outputs if they have any, and one tensor of targets.
    """

    relative = False
    whole = True

    def __init__(self, function: PerSampleLoss) -> None:
        self._function = function

    def terms(self, outputs: Any, targets: Any) -> Any:
        """Return the loss of each sample, shape ``(n,)``; for token losses the sum over the tokens that count."""
        return self._function(outputs, targets)

    def counts(self, targets: Any) -> Tensor:
        """Return what each sample adds to the divisor of the mean, shape ``(n,)``, float64."""
        some = structures.first(targets)
        return torch.ones(len(some), dtype=torch.float64, device=some.device)

    def check(self, outputs: Any, targets: Any) -> None:
        """Raise `InputError` if the targets cannot belong to the outputs. Reads values, so it runs on one pass only."""

    def check_form(self, targets: Any) -> None:
        """Raise `InputError` for targets of several tensors where the loss takes one."""
        require(
            self.whole or isinstance(targets, Tensor),
            f"This loss takes one tensor of targets; given {type(targets).__name__}. A callable of your own, "
            "(outputs, targets) -> one loss a sample, is given targets of any form.",
        )

    def doubts(self, outputs: Any, targets: Tensor) -> Tensor:
        """Return 1 - p_y of each sample.

        Raises:
            InputError: The loss has no p_y.
        """
        raise InputError("1 - p_y is known for the cross-entropy of class labels only; use loss='cross_entropy'.")


class CrossEntropy(Loss):
    """Cross-entropy of class labels ``(n,)`` or tokens ``(n, t)`` under logits with the classes on the last axis.

    Args:
        ignore_index: Label of samples and tokens that do not count.
        shift: Positions by which tokens lie ahead of their logits: 1 for causal language models whose labels are their
            inputs.
    """

    relative, whole = True, False

    def __init__(self, ignore_index: int = IGNORED, shift: int = 0) -> None:
        self._ignored, self._shift = ignore_index, shift

    def terms(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the sum over a sample's tokens that count."""
        return self._each(outputs, targets).flatten(1).sum(1) if targets.ndim > 1 else self._each(outputs, targets)

    def counts(self, targets: Tensor) -> Tensor:
        """Return the number of tokens that count in each sample."""
        targets = self._ahead(targets).long()  # in 8 bits -100 would be 156
        return (targets != self._ignored).reshape(len(targets), -1).sum(1, dtype=torch.float64)

    def check(self, outputs: Any, targets: Tensor) -> None:
        """Raise `InputError` for outputs that are no logits, targets that are no labels, and labels out of range."""
        logits = _one_tensor(outputs, "cross_entropy")
        one = logits.ndim >= 1 and logits.numel() == len(logits)
        require(
            not one or targets.numel() != len(logits),
            f"cross_entropy needs a logit for each class; given outputs {tuple(logits.shape)}, one a sample. Use "
            "loss='binary_cross_entropy' for two classes, or loss=nn.MSELoss() for a regression.",
        )
        require(
            not targets.is_floating_point(),
            f"cross_entropy needs integer class labels; given {targets.dtype}. For probabilities as targets use "
            "loss=nn.CrossEntropyLoss(), for several labels a sample loss=nn.BCEWithLogitsLoss().",
        )
        require(
            logits.ndim >= 2 and logits.shape[:-1] == targets.shape,
            f"cross_entropy needs logits (n, c) with labels (n,), or (n, t, c) with (n, t), classes on the last axis; "
            f"given outputs {tuple(logits.shape)} and targets {tuple(targets.shape)}.{_layout(logits, targets)}",
        )
        _check_range(self._ahead(targets), logits.shape[-1], self._ignored)

    def doubts(self, outputs: Any, targets: Tensor) -> Tensor:
        """Return 1 - p_y of each sample in float64, with full relative precision; tokens of a sample are summed."""
        each = -torch.expm1(-self._each(outputs, targets).double())
        return each.reshape(len(each), -1).sum(1)

    def _ahead(self, targets: Tensor) -> Tensor:
        require(
            not self._shift or targets.ndim > 1,
            f"next_token needs labels (n, t), those of every position; given {tuple(targets.shape)}.",
        )
        return targets[:, self._shift :] if self._shift else targets

    def _each(self, outputs: Tensor, targets: Tensor) -> Tensor:
        if self._shift:
            outputs, targets = outputs[:, : -self._shift], self._ahead(targets)
        labels = targets.reshape(-1).long()
        counted = labels != self._ignored
        losses = cross_entropy(outputs.reshape(-1, outputs.shape[-1]), torch.where(counted, labels, 0))
        return torch.where(counted, losses, 0).reshape(targets.shape)


class BinaryCrossEntropy(Loss):
    """`binary_cross_entropy` for logits ``(n,)`` or ``(n, 1)`` and targets of either shape, integer or not."""

    whole = False

    def __init__(self) -> None:
        super().__init__(lambda z, t: binary_cross_entropy(z.reshape(-1), t.reshape(-1).to(z.dtype)))

    def check(self, outputs: Any, targets: Tensor) -> None:
        """Raise `InputError` unless there is one logit and one target between 0 and 1 for each sample."""
        logits = _one_tensor(outputs, "binary_cross_entropy")
        require(
            logits.numel() == targets.numel() == len(targets),
            f"binary_cross_entropy needs one logit and one target a sample; given outputs {tuple(logits.shape)} and "
            f"targets {tuple(targets.shape)}. For several labels a sample use loss=nn.BCEWithLogitsLoss().",
        )
        outside = targets[(targets < 0) | (targets > 1)]
        require(
            outside.numel() == 0,
            f"Targets of binary_cross_entropy lie between 0 and 1; given {outside[:1].tolist()}.",
        )


class SquaredError(Loss):
    """`squared_error`."""

    whole = False

    def __init__(self) -> None:
        super().__init__(squared_error)

    def check(self, outputs: Any, targets: Tensor) -> None:
        """Raise `InputError` for integer labels out of range."""
        values = _one_tensor(outputs, "squared_error")
        if _are_classes(values, targets):
            _check_range(targets, values.shape[1], None)


LOSSES: dict[str, Callable[[int], Loss]] = {
    "cross_entropy": CrossEntropy,
    "next_token": lambda ignored: CrossEntropy(ignored, shift=1),
    "binary_cross_entropy": lambda ignored: BinaryCrossEntropy(),
    "squared_error": lambda ignored: SquaredError(),
}


def named(name: str, ignore_index: int = IGNORED) -> Loss:
    """Return the loss of a name.

    ``"cross_entropy"``
        Class labels ``(n,)`` under logits ``(n, c)``, or tokens ``(n, t)`` under ``(n, t, c)``: the mean over all
        tokens of the whole set that are not ``ignore_index``.
    ``"next_token"``
        The same for causal language models whose labels are their inputs: logits at t against the token at t + 1.
    ``"binary_cross_entropy"``
        One logit a sample, targets 0, 1 or between.
    ``"squared_error"``
        The sum over outputs of the squared difference; class labels count as one-hot vectors.

    Raises:
        InputError: Unknown name.
    """
    if name not in LOSSES:
        error = unknown_name("loss", name, LOSSES)
        raise InputError(f"{error} Any loss of PyTorch can be given itself, as in loss=nn.MSELoss().")
    return LOSSES[name](ignore_index)


def _one_tensor(outputs: Any, name: str) -> Tensor:
    if not isinstance(outputs, Tensor):
        keys = f" with {', '.join(map(repr, outputs))}" if isinstance(outputs, Mapping) else ""
        place = repr(next(iter(outputs), 0)) if isinstance(outputs, Mapping) else "0"
        raise InputError(
            f"{name} needs one tensor of outputs; the model returned a {type(outputs).__name__}{keys}. "
            f"Pick the tensor with forward=lambda model, inputs: model(inputs)[{place}], say."
        )
    return outputs


def _layout(logits: Tensor, targets: Tensor) -> str:
    """What else the shapes may mean, as a sentence."""
    if logits.shape[:1] + logits.shape[2:] == targets.shape:
        return " For PyTorch's layout, with the classes on the second axis, use loss=nn.CrossEntropyLoss()."
    if logits.shape == targets.shape:
        return " For several labels a sample use loss=nn.BCEWithLogitsLoss() with targets of floating point."
    return ""


def _check_range(labels: Tensor, classes: int, ignored: int | None) -> None:
    labels = labels.long()
    wrong = (labels < 0) | (labels >= classes)
    if ignored is not None:
        wrong &= labels != ignored
    found = labels[wrong]
    if found.numel():
        also = "" if ignored is None else f", or {ignored} to leave a label out"
        raise InputError(
            f"The label {int(found[0])} is out of range: the model has {classes} outputs, so labels lie in "
            f"0..{classes - 1}{also}. {found.numel()} labels of this chunk are out of range."
        )
