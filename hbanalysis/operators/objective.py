"""The weighted loss of a chunk as a function of the weights: model, how it is called, and loss."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from hbanalysis.errors import InputError, NumericalError, require
from hbanalysis.operators.guards import HALF, twice_differentiable
from hbanalysis.operators.losses import Loss
from hbanalysis.operators.parameters import ParameterSpace
from hbanalysis.operators.samples import Chunk
from hbanalysis.operators.structures import leaves, mapped

Forward = Callable[[nn.Module, Any], Any]
# How far the loss of a sample may differ between two batches: of itself, and of the largest in its chunk.
_RELATIVE, _ABSOLUTE = 1e-3, 1e-4
_FEW = 8  # samples in the chunks by which memory is measured
_TOGETHER = (
    "samples that belong together, as the nodes of a graph do, are one sample: give inputs[None], targets[None]."
)


def call(model: nn.Module, inputs: Any) -> Any:
    """Return the model's outputs: a tensor is one argument, a tuple several, a dict keyword arguments.

    Example:
        >>> call(nn.Identity(), {"input": torch.ones(1)})
        tensor([1.])
    """
    if isinstance(inputs, Mapping):
        return model(**inputs)
    if isinstance(inputs, list | tuple):
        return model(*inputs)
    return model(inputs)


def logits_of(outputs: Any) -> Any:
    """Return ``outputs.logits`` or ``outputs["logits"]`` if a model's outputs have any, otherwise the outputs.

    Example:
        >>> logits_of({"logits": torch.ones(1)})
        tensor([1.])
    """
    if isinstance(outputs, Mapping) and "logits" in outputs:
        return outputs["logits"]
    return getattr(outputs, "logits", outputs)


class Objective:
    """The loss of chunks, summed over their samples, and its gradient.

    Args:
        model: The model, in eval mode by the time a method is called.
        space: The weights that count.
        loss: The loss of each sample.
        forward: How the model is called; `call` by default.
    """

    def __init__(self, model: nn.Module, space: ParameterSpace, loss: Loss, forward: Forward | None = None) -> None:
        self.model, self.space, self.loss = model, space, loss
        self._forward = forward or call
        self._apart = False  # whether samples were seen not to depend on each other
        self._writes: bool | None = None  # whether the model writes into its inputs, which then are copies

    def outputs(self, chunk: Chunk) -> Any:
        """Return the model's outputs; for a loss of tensors ``.logits`` of them, or ``["logits"]``, if they exist."""
        inputs = chunk.inputs if self._writes is False else mapped(torch.clone, chunk.inputs)
        versions = [t._version for t in leaves(inputs)]
        try:
            outputs = self._forward(self.model, inputs)
        except (RuntimeError, TypeError, ValueError, IndexError) as error:
            given = ", ".join(f"{t.dtype} {tuple(t.shape)}" for t in leaves(chunk.inputs))
            together = "" if len(chunk) > _FEW else f" It must take {len(chunk)} samples as well as many; {_TOGETHER}"
            error.add_note(f"The model was called with {chunk.name}: {given}.{together}")
            raise
        if self._writes is None:
            self._writes = [t._version for t in leaves(inputs)] != versions
        return outputs if self.loss.whole else logits_of(outputs)

    def each(self, outputs: Any, chunk: Chunk) -> Tensor:
        """Return the loss of each sample, ``(n,)``, without its weight.

        Raises:
            InputError: The loss does not return one value a sample.
        """
        try:
            losses = self.loss.terms(outputs, chunk.targets)
        except (RuntimeError, TypeError, ValueError, IndexError, KeyError) as error:
            targets = ", ".join(f"{t.dtype} {tuple(t.shape)}" for t in leaves(chunk.targets))
            error.add_note(f"The loss was called with {_described(outputs)} and targets {targets} of {chunk.name}.")
            raise
        n = len(chunk)
        if not isinstance(losses, Tensor) or losses.shape != (n,):
            given = f"shape {tuple(losses.shape)}" if isinstance(losses, Tensor) else type(losses).__name__
            several = isinstance(losses, Tensor) and losses.ndim > 0 and len(losses) == n
            advice = "Join a sample's values, by .flatten(1).sum(1) say" if several else "Use reduction='none'"
            raise InputError(
                f"The loss must return one value a sample, shape ({n},); it returned {given}. {advice}, or give a loss "
                "that has a reduction, such as nn.MSELoss()."
            )
        return losses

    def reduce(self, outputs: Any, chunk: Chunk) -> Tensor:
        """Return the weighted sum of the losses, a float64 scalar."""
        losses = self.each(outputs, chunk)
        if chunk.weights is not None:
            losses = losses * chunk.weights.to(losses.dtype)
        return losses.sum(dtype=torch.float64)

    def total(self, chunk: Chunk) -> Tensor:
        """Return the weighted sum of the losses after checking the chunk; see `check`."""
        outputs = self.outputs(chunk)
        self.check(outputs, chunk)
        return self.reduce(outputs, chunk)

    def doubts(self, chunk: Chunk) -> Tensor:
        """Return 1 - p_y of each sample after checking the chunk; see `check`."""
        outputs = self.outputs(chunk)
        self.check(outputs, chunk)
        return self.loss.doubts(outputs, chunk.targets)

    def check(self, outputs: Any, chunk: Chunk) -> None:
        """Raise `InputError` if targets cannot belong to their outputs, or samples are not independent of each other.

        The second is seen on the last two samples of the first chunk that has more than one: their losses must be the
        same by themselves as in the chunk. Cost: one forward pass over two samples, once.

        Raises:
            InputError: Names the value, what is allowed and the chunk.
        """
        for t in leaves(outputs):
            require(
                t.dtype not in HALF,
                f"The model returned outputs in {t.dtype}: 16 bits keep no second derivatives. It computes in them "
                "somewhere, under torch.autocast perhaps; let it compute in float32.",
            )
        try:
            self.loss.check(outputs, chunk.targets)
        except InputError as error:
            raise InputError(f"In {chunk.name}: {error}") from error
        if not self._apart and len(chunk) > 1:
            self._check_apart(self.each(outputs, chunk).detach(), chunk)
            self._apart = True

    def _check_apart(self, together: Tensor, chunk: Chunk) -> None:
        few = min(2, len(chunk) - 1)
        last = chunk.rows(slice(len(chunk) - few, None))
        try:
            alone = self.each(self.outputs(last), last).detach()
        except (RuntimeError, TypeError, ValueError, IndexError) as error:
            raise InputError(
                f"The last {few} samples of {chunk.name} by themselves, whose losses must be the same as in the chunk, "
                f"are refused: {error} The loss must be a mean over samples, each of which depends on nothing but "
                f"itself; {_TOGETHER}"
            ) from error
        same = together[-few:]
        if bool(((same - alone).abs() <= _RELATIVE * same.abs() + _ABSOLUTE * together.abs().max()).all()):
            return
        if not bool(torch.isfinite(together).all()):
            return  # told apart, with its own message, where the sum is formed
        raise InputError(
            f"The last {few} samples of {chunk.name} have the losses {_listed(same)} in the chunk and {_listed(alone)} "
            "by themselves. The loss must be a mean over samples, each of which depends on nothing but itself: no "
            "dropout or other chance in eval mode, no statistics of the batch, no loss between the samples of a batch, "
            f"no lists of numbers that are not cut with the samples; {_TOGETHER}"
        )

    def gradient(self, total: Tensor, graph: bool) -> tuple[Tensor | None, ...]:
        """Return the gradient of a loss in each parameter, with its own graph or without.

        Raises:
            InputError: The loss does not depend on the weights, or an operation has no derivative.
        """
        if not total.requires_grad:
            raise InputError(
                "The loss does not depend on the chosen weights in a way that PyTorch can differentiate: the model or "
                "the loss detaches, or runs under torch.no_grad."
            )
        with twice_differentiable():
            return torch.autograd.grad(total, self.space.tensors, create_graph=graph, allow_unused=True)


def _listed(values: Tensor) -> str:
    return ", ".join(f"{value:.6g}" for value in values.tolist())


def _described(outputs: Any) -> str:
    shapes = ", ".join(f"{t.dtype} {tuple(t.shape)}" for t in leaves(outputs))
    return f"outputs {shapes}" if isinstance(outputs, Tensor) else f"outputs {type(outputs).__name__} ({shapes})"


def check_finite(losses: list[Tensor], names: list[str]) -> None:
    """Raise `NumericalError` if a chunk's loss is not finite, naming the first such chunk. Reads the device once.

    Raises:
        NumericalError: A loss is NaN or infinite.
    """
    values = torch.stack(losses).tolist() if losses else []
    for value, name in zip(values, names, strict=True):
        if value - value != 0:
            raise NumericalError(f"The loss of {name} is {value}; check the weights and the inputs.")
