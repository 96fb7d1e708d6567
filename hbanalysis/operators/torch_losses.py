"""PyTorch's own losses as per-sample losses: run with ``reduction="none"`` and normalised over the whole set."""

import copy
import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hbanalysis.errors import InputError, require
from hbanalysis.operators.losses import IGNORED, CrossEntropy, Loss, PerSampleLoss, named

_SUMMED = ("sum", "batchmean")  # a sample's elements are added, not averaged
_SAME = 1e-4  # relative difference of two ways to take a mean that is no more than rounding


def resolve(loss: str | PerSampleLoss, ignore_index: int = IGNORED) -> Loss:
    """Return the loss for a name, a PyTorch loss or any callable.

    A callable with a ``reduction`` (``nn.MSELoss()``, ``F.huber_loss``, a ``functools.partial`` of one) runs with
    ``"none"``; ``"mean"`` then averages and ``"sum"`` adds a sample's elements. ``nn.CrossEntropyLoss`` and
    ``nn.NLLLoss`` keep PyTorch's weighted mean: with class weights the divisor is the sum of the weights of the labels.
    Any other callable maps outputs and targets to ``n`` losses, one a sample.

    Raises:
        InputError: Unknown name.

    Example:
        >>> resolve(nn.CrossEntropyLoss(weight=torch.tensor([1.0, 3.0]))).counts(torch.tensor([0, 1, 1]))
        tensor([1., 3., 3.], dtype=torch.float64)
    """
    if not callable(loss):
        return named(loss, ignore_index)
    require(
        not (inspect.isclass(loss) and issubclass(loss, nn.Module)),
        f"loss= is the class {getattr(loss, '__name__', loss)}; give an instance of it, as in loss=nn.MSELoss().",
    )
    module = _class_module(loss)
    if isinstance(module, nn.CrossEntropyLoss) and module.weight is None and not module.label_smoothing:
        return PlainCrossEntropy(module)
    if module is not None:
        return ClassLoss(module)
    if type(loss) is nn.MSELoss:
        return Reduced(_squares, str(loss.reduction), copy.deepcopy(loss))
    if loss is F.mse_loss:
        return Reduced(_squares, "mean", loss)
    if isinstance(loss, nn.Module) and hasattr(loss, "reduction"):
        return Reduced(_unreduced(loss), str(loss.reduction), copy.deepcopy(loss))
    default = _reduction_of(loss)
    return Loss(loss) if default is None else Reduced(partial(loss, **{"reduction": "none"}), default, loss)


def _class_module(loss: Any) -> nn.CrossEntropyLoss | nn.NLLLoss | None:
    """The module that a loss is or, as a (partial of a) functional, stands for; subclasses may do anything else."""
    if type(loss) in (nn.CrossEntropyLoss, nn.NLLLoss):
        return loss
    partly = isinstance(loss, partial) and not loss.args
    function, keywords = (loss.func, loss.keywords) if partly else (loss, {})
    if function is F.cross_entropy:
        return nn.CrossEntropyLoss(**keywords)
    return nn.NLLLoss(**keywords) if function is F.nll_loss else None


def _unreduced(module: Any) -> Any:
    twin = copy.deepcopy(module)
    twin.reduction = "none"
    return twin


def _reduction_of(loss: Callable[..., Any]) -> str | None:
    """The default of a callable's ``reduction`` keyword, or ``None`` if it has none."""
    try:
        keyword = inspect.signature(loss).parameters.get("reduction")
    except (TypeError, ValueError):
        return None
    if keyword is None or keyword.kind not in (keyword.POSITIONAL_OR_KEYWORD, keyword.KEYWORD_ONLY):
        return None
    return str(keyword.default)


def _squares(outputs: Tensor, targets: Tensor) -> Tensor:
    """The squared differences of elements. PyTorch's own, traced for products, ends the process (2.15)."""
    return (outputs - targets).square()


class Reduced(Loss):
    """A callable that ran with ``reduction="none"``; its elements are joined to one value a sample.

    Args:
        function: The callable with ``reduction="none"``.
        reduction: Its own: says how a sample's elements are joined.
        own: The callable with its own reduction, which must give the mean (or sum) over the samples.
    """

    whole = False

    def __init__(self, function: PerSampleLoss, reduction: str, own: PerSampleLoss) -> None:
        super().__init__(function)
        self._reduction, self._own = reduction, own

    def terms(self, outputs: Any, targets: Tensor) -> Tensor:
        """Return each sample's mean (or sum) over its elements."""
        _follow(self._function, targets.device)
        values = self._function(outputs, targets)
        n = len(targets)
        if values.ndim == 0 or len(values) != n or (self._reduction == "none" and values.ndim > 1):
            raise InputError(
                f"With reduction='none' this loss returned shape {tuple(values.shape)} for {n} samples; one value a "
                "sample is needed, or elements with reduction='mean' or 'sum' to say how they are joined."
            )
        rows = values.reshape(n, -1)
        return rows.sum(1) if self._reduction in _SUMMED else rows.mean(1)

    def check(self, outputs: Any, targets: Tensor) -> None:
        """Raise `InputError` for shapes that would be broadcast, and where the loss divides by something else.

        Outputs ``(n, 1)`` and targets ``(n,)`` would be broadcast to ``(n, n)``. And a loss whose own mean is not the
        mean over samples (class weights, pixels that are ignored) cannot be put together from theirs.
        """
        if isinstance(outputs, Tensor) and outputs.numel() == targets.numel():
            require(
                outputs.shape == targets.shape,
                f"Outputs {tuple(outputs.shape)} and targets {tuple(targets.shape)} would be broadcast against each "
                f"other; reshape the targets to {tuple(outputs.shape)}.",
            )
        if self._reduction == "none":
            return
        with torch.no_grad():
            _follow(self._own, targets.device)
            own, terms = self._own(outputs, targets).double(), self.terms(outputs, targets).double()
        joined = terms.sum() if self._reduction == "sum" else terms.mean()
        require(
            bool((own - joined).abs() <= _SAME * terms.abs().mean() * (len(terms) if self._reduction == "sum" else 1))
            or not bool(torch.isfinite(own)),
            f"With reduction={self._reduction!r} this loss gives {float(own):.6g} for {len(terms)} samples, and the "
            f"{'sum' if self._reduction == 'sum' else 'mean'} of their values with reduction='none' is "
            f"{float(joined):.6g}: it divides by something else than the samples, such as weights of classes or what "
            "is not ignored. Use nn.CrossEntropyLoss(weight=..., ignore_index=...) itself, which is divided rightly "
            "over the whole set, or a callable that returns one value a sample.",
        )


class ClassLoss(Loss):
    """``nn.CrossEntropyLoss`` or ``nn.NLLLoss`` with class weights, label smoothing or probabilities as targets."""

    whole = False

    def __init__(self, module: nn.CrossEntropyLoss | nn.NLLLoss) -> None:
        super().__init__(_unreduced(module))
        self._weight, self._ignored = module.weight, module.ignore_index

    def terms(self, outputs: Any, targets: Tensor) -> Tensor:
        """Return each sample's loss, weighted by its class; tokens of a sample are summed."""
        _follow(self._function, targets.device)
        if targets.is_floating_point():
            return self._function(outputs, targets)
        logits = classes_last(outputs, targets)
        flat = self._function(logits.reshape(-1, logits.shape[-1]), targets.reshape(-1).long())
        return flat.reshape(len(targets), -1).sum(1)

    def counts(self, targets: Tensor) -> Tensor:
        """Return the sum of the class weights of each sample's labels that count."""
        if targets.is_floating_point():
            return super().counts(targets)
        targets = targets.long()  # in 8 bits -100 would be 156
        counted = targets != self._ignored
        if self._weight is None:
            weights = counted.double()
        else:
            CrossEntropy(self._ignored).check(self._weight.expand(*targets.shape, -1), targets)
            weights = self._weight.double().to(targets.device)[torch.where(counted, targets, 0).long()] * counted
        return weights.reshape(len(targets), -1).sum(1)

    def check(self, outputs: Any, targets: Tensor) -> None:
        """Raise `InputError` for labels out of range."""
        if not targets.is_floating_point():
            CrossEntropy(self._ignored).check(classes_last(outputs, targets), targets)


class PlainCrossEntropy(ClassLoss):
    """``nn.CrossEntropyLoss`` without weights or smoothing: from logits relative to the label where targets are labels.

    It is the same function, with the digits of saturated samples.
    """

    relative = True

    def __init__(self, module: nn.CrossEntropyLoss) -> None:
        super().__init__(module)
        self._labels = CrossEntropy(module.ignore_index)

    def terms(self, outputs: Any, targets: Tensor) -> Tensor:
        """Return each sample's loss; tokens of a sample are summed."""
        if targets.is_floating_point():
            return super().terms(outputs, targets)
        return self._labels.terms(classes_last(outputs, targets), targets)

    def doubts(self, outputs: Any, targets: Tensor) -> Tensor:
        """Return 1 - p_y of each sample; see `CrossEntropy.doubts`."""
        return self._labels.doubts(classes_last(outputs, targets), targets)


def classes_last(outputs: Any, targets: Tensor) -> Tensor:
    """Return logits with the class axis last, from ``(n, t, c)`` or PyTorch's own layout ``(n, c, t)``.

    Raises:
        InputError: Both layouts fit, so that the class axis is unknown.
    """
    if not isinstance(outputs, Tensor) or outputs.ndim != targets.ndim + 1 or targets.ndim == 1:
        return outputs
    last = outputs.shape[:-1] == targets.shape
    second = outputs.shape[:1] + outputs.shape[2:] == targets.shape
    if last and second:
        raise InputError(
            f"Outputs {tuple(outputs.shape)} with targets {tuple(targets.shape)} do not tell which axis holds the "
            "classes. Use loss='cross_entropy', which takes the last one; if it is the second, PyTorch's own layout, "
            "give forward=lambda model, inputs: model(inputs).movedim(1, -1) as well."
        )
    return outputs.movedim(1, -1) if second else outputs


def _follow(function: object, device: torch.device) -> None:
    """Move a loss module's own tensors (class weights) to the targets' device."""
    if isinstance(function, nn.Module):
        function.to(device)
