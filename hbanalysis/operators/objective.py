"""The weighted loss of a chunk as a function of the weights: model, how it is called, and loss."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from hbanalysis.errors import InputError, NumericalError
from hbanalysis.operators.guards import twice_differentiable
from hbanalysis.operators.losses import Loss
from hbanalysis.operators.parameters import ParameterSpace
from hbanalysis.operators.samples import Chunk
from hbanalysis.operators.structures import leaves

Forward = Callable[[nn.Module, Any], Any]


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

    def outputs(self, chunk: Chunk) -> Any:
        """Return the model's outputs; ``.logits`` of them, or ``["logits"]``, if they have any."""
        try:
            outputs = self._forward(self.model, chunk.inputs)
        except (RuntimeError, TypeError, ValueError, IndexError) as error:
            given = ", ".join(f"{t.dtype} {tuple(t.shape)}" for t in leaves(chunk.inputs))
            error.add_note(f"The model was called with {chunk.name}: {given}.")
            raise
        return logits_of(outputs)

    def each(self, outputs: Any, chunk: Chunk) -> Tensor:
        """Return the loss of each sample, ``(n,)``, without its weight.

        Raises:
            InputError: The loss does not return one value a sample.
        """
        losses = self.loss.terms(outputs, chunk.targets)
        n = len(chunk)
        if not isinstance(losses, Tensor) or losses.shape != (n,):
            given = f"shape {tuple(losses.shape)}" if isinstance(losses, Tensor) else type(losses).__name__
            raise InputError(
                f"The loss must return one value a sample, shape ({n},); it returned {given}. Use reduction='none', or "
                "give a loss that has a reduction, such as nn.MSELoss()."
            )
        return losses

    def reduce(self, outputs: Any, chunk: Chunk) -> Tensor:
        """Return the weighted sum of the losses, a float64 scalar."""
        losses = self.each(outputs, chunk)
        if chunk.weights is not None:
            losses = losses * chunk.weights.to(losses.dtype)
        return losses.sum(dtype=torch.float64)

    def total(self, chunk: Chunk) -> Tensor:
        """Return the weighted sum of the losses after checking the targets; see `check_targets`."""
        outputs = self.outputs(chunk)
        self.check_targets(outputs, chunk)
        return self.reduce(outputs, chunk)

    def doubts(self, chunk: Chunk) -> Tensor:
        """Return 1 - p_y of each sample after checking the targets; see `check_targets`."""
        outputs = self.outputs(chunk)
        self.check_targets(outputs, chunk)
        return self.loss.doubts(outputs, chunk.targets)

    def check_targets(self, outputs: Any, chunk: Chunk) -> None:
        """Raise `InputError` if the targets of a chunk cannot belong to these outputs.

        Raises:
            InputError: Names the value, what is allowed and the chunk.
        """
        try:
            self.loss.check(outputs, chunk.targets)
        except InputError as error:
            raise InputError(f"In {chunk.name}: {error}") from error

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


def check_finite(losses: list[Tensor], names: list[str]) -> None:
    """Raise `NumericalError` if a chunk's loss is not finite, naming the first such chunk. Reads the device once.

    Raises:
        NumericalError: A loss is NaN or infinite.
    """
    values = torch.stack(losses).tolist() if losses else []
    for value, name in zip(values, names, strict=True):
        if value - value != 0:
            raise NumericalError(f"The loss of {name} is {value}; check the weights and the inputs.")
