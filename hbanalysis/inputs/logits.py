"""A model as a map from inputs to logits, one sample at a time: what every function of this package checks first."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from hbanalysis.errors import InputError, NumericalError, require
from hbanalysis.memory import available
from hbanalysis.operators.guards import check_model, differentiation, twice_differentiable, unwrapped
from hbanalysis.operators.objective import logits_of
from hbanalysis.operators.products import graph_bytes

Labels = Tensor | Sequence[int] | np.ndarray  # numbers of classes, one a sample

_LARGEST_CHUNK = {"cpu": 50, "cuda": 1000}
_LARGEST_BUDGET = 1 << 30  # bytes on a CPU; larger chunks are no faster there
_HALF = (torch.float16, torch.bfloat16)
_MIXED = 10  # a slope in another sample of so many rounding units of the largest is none
_NO_PATH = (
    "The logits do not depend on the inputs in a way that PyTorch can differentiate: the model detaches them, rounds "
    "them, or runs under torch.no_grad. Give the model without that step."
)


@dataclass(frozen=True)
class Piece:
    """Samples that are differentiated at once, on the model's device and in its dtype.

    Attributes:
        inputs: A leaf that requires a gradient, ``(n, ...)``.
        labels: ``(n,)``, int64.
        first: Number of the first sample among all.
    """

    inputs: Tensor
    labels: Tensor
    first: int

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def name(self) -> str:
        """What error messages call it."""
        return f"samples {self.first}..{self.first + len(self) - 1}"


class LogitMap:
    """The logits of a model as a function of inputs, checked: classes, labels, and that samples do not mix.

    Args:
        model: Maps ``(n, ...)`` to logits ``(n, c)``; outputs with ``logits`` are understood.
        x: Inputs ``(N, ...)``, floating point, moved piece by piece to the model's device and dtype.
        labels: Class labels ``(N,)``.

    Attributes:
        classes: c.
        dtype: The dtype computed in.
        device: The device computed on.

    Cost: two or three forward passes and one backward pass of two samples.

    Raises:
        InputError: See `hbanalysis.inputs`.
        NumericalError: The logits of the first samples are not finite.
    """

    def __init__(self, model: nn.Module, x: Tensor, labels: Labels) -> None:
        self.model = unwrapped(model)
        check_model(self.model)
        check_inputs(x)
        self.x = x.detach()
        weight = next((t for t in (*self.model.parameters(), *self.model.buffers()) if t.is_floating_point()), x)
        self.dtype, self.device = weight.dtype, weight.device
        self.labels = _labels_of(labels, len(x))
        self._layout = torch.contiguous_format
        with self.guarded():
            self.pair = self._pair()
            logits = self(self.pair)
            self.classes = _check_logits(logits, 2)
            self._check_labels()
            check_finite(logits.detach(), self.pair)
            with twice_differentiable():
                require(check_samples_apart(logits, self.pair.inputs), _NO_PATH)
            self._settle_layout(logits.detach())

    def guarded(self) -> AbstractContextManager[None]:
        """Return the context in which the model may be called; see `guards.differentiation`."""
        return differentiation(self.model)

    def __call__(self, piece: Piece) -> Tensor:
        """Return logits ``(n, c)`` with their graph.

        Raises:
            InputError: The model returns something else than a tensor, or an object with ``logits``.
        """
        try:
            found = logits_of(self.model(piece.inputs.clone()))  # a model may write into what it is given
        except (RuntimeError, TypeError, ValueError, IndexError) as error:
            error.add_note(f"The model was called with {piece.name}: {self.dtype} {tuple(piece.inputs.shape)}.")
            raise
        if not isinstance(found, Tensor):
            kind = "dict" if isinstance(found, Mapping) else type(found).__name__
            raise InputError(f"The model must return one tensor of logits (n, c), or .logits; it returned a {kind}.")
        return found

    def pieces(self, size: int) -> Iterator[Piece]:
        """Yield all samples, ``size`` at a time."""
        for first in range(0, len(self.x), size):
            yield self.piece(slice(first, first + size), first)

    def piece(self, which: slice | Tensor, first: int = 0) -> Piece:
        """Return some of the samples as a fresh leaf."""
        inputs = self.x[which].to(self.device, self.dtype)
        if inputs.is_inference():
            inputs = inputs.clone()
        if self._layout == torch.channels_last:
            inputs = inputs.contiguous(memory_format=torch.channels_last)
            if inputs.shape[1] == 1:  # PyTorch calls one channel contiguous in both layouts and picks by the strides
                inputs = inputs.as_strided(inputs.shape, (inputs[0].numel(), 1, inputs.shape[3], 1))
        labels = self.labels[which].to(self.device)
        return Piece(inputs.detach().requires_grad_(), labels.clone() if labels.is_inference() else labels, first)

    def size(self, chunk_size: int | None, memory_budget: int | None, bytes_a_sample: float) -> int:
        """Return how many samples to differentiate at once.

        Args:
            chunk_size: What was asked for, or ``None``.
            memory_budget: Bytes that a piece may take; ``None`` means a quarter of what is free (1 GiB at most) on a
                CPU, half of it on a GPU.
            bytes_a_sample: What a sample takes.

        Raises:
            InputError: Either is out of range.
        """
        require(chunk_size is None or chunk_size > 0, f"chunk_size must be at least 1; given {chunk_size}.")
        require(memory_budget is None or memory_budget > 0, f"memory_budget is in bytes; given {memory_budget}.")
        if chunk_size is not None:
            return chunk_size
        most = _LARGEST_CHUNK.get(self.device.type, 1000)
        return max(min(int(self.budget(memory_budget) / bytes_a_sample), most), 1)

    def budget(self, memory_budget: int | None) -> int:
        """Return the bytes that may be used; see `size`."""
        free = available(self.device)
        most = free // 2 if self.device.type == "cuda" else min(free // 4, _LARGEST_BUDGET)
        return most if memory_budget is None else memory_budget

    def graph_bytes(self) -> float:
        """Return the bytes that the graph of the logits keeps for a sample. Cost: a forward pass of two samples."""
        known = {t.untyped_storage().data_ptr() for t in (*self.model.parameters(), *self.model.buffers())}
        return max(graph_bytes(lambda: self(self.pair), known) / 2, 1.0)

    def _pair(self) -> Piece:
        """Two samples to try things on; one sample stands twice."""
        return self.piece(torch.arange(2) % len(self.x))

    def _check_labels(self) -> None:
        wrong = ((self.labels < 0) | (self.labels >= self.classes)).nonzero().flatten()
        if len(wrong):
            raise InputError(
                f"The label {int(self.labels[wrong[0]])} of sample {int(wrong[0])} is out of range: the model has "
                f"{self.classes} outputs, so labels lie in 0..{self.classes - 1}. {len(wrong)} labels are out of range."
            )

    def _settle_layout(self, logits: Tensor) -> None:
        """Take images channels last on a CPU, where convolutions are faster so, if the model gives the same.

        Raises:
            InputError: The model does not even give the same for the same inputs.
        """
        if self.device.type == "cpu" and self.x.ndim == 4:
            self._layout = torch.channels_last
            other = self._pair()
            try:
                if self._gives(other, logits):
                    self.pair = other
                    return
            except RuntimeError:  # .view(n, -1) of a layout that it cannot flatten
                pass
            self._layout = torch.contiguous_format
        require(
            self._gives(self.pair, logits),
            "The model gives other logits for the same inputs in eval mode: dropout or noise that is always on, say. "
            "Take the randomness out, or fix it.",
        )

    def _gives(self, piece: Piece, logits: Tensor) -> bool:
        found = self(piece).detach()
        return torch.allclose(found, logits, rtol=1e-3, atol=1e-3 * float(logits.abs().max()))


def check_finite(logits: Tensor, piece: Piece) -> None:
    """Raise `NumericalError` if a sample's logits, or anything else of it, are not finite.

    Raises:
        NumericalError: Names the sample.
    """
    wrong = (~logits.isfinite()).reshape(len(logits), -1).any(1).nonzero().flatten()
    if len(wrong):
        raise NumericalError(
            f"The logits, gradients or products of sample {piece.first + int(wrong[0])} are not finite; check the "
            "weights, the inputs and the vectors."
        )


def check_samples_apart(logits: Tensor, inputs: Tensor) -> bool:
    """Refuse a model whose logits of one sample depend on another one; return whether they have a derivative at all.

    Args:
        logits: Those of a batch, ``(n, c)``, with their graph, which is freed.
        inputs: The batch, a leaf, ``(n, ...)`` with at least 2 samples.

    Cost: a backward pass.

    Raises:
        InputError: The logits of the first sample change with the other samples, beyond rounding.
    """
    if not logits.requires_grad:
        return False
    # Unequal weights, since a softmax layer at the end makes the plain sum constant.
    weights = torch.linspace(1, 2, logits.shape[1], dtype=logits.dtype, device=logits.device)
    (slope,) = torch.autograd.grad(logits[0] @ weights, inputs, allow_unused=True)
    if slope is None:
        return False
    sizes = slope.abs()
    if bool(sizes[1:].amax() > _MIXED * torch.finfo(slope.dtype).eps * sizes.amax()):
        raise InputError(
            "The logits of a sample depend on the other samples of its batch, in eval mode: batch normalisation that "
            "is forced to use the batch's statistics, say. A sample's derivatives then change with its batch, and the "
            "Hessian in the inputs is not one block a sample. Use running statistics, or GroupNorm."
        )
    return True


def check_inputs(x: Tensor) -> None:
    """Raise `InputError` unless inputs can be differentiated in.

    Raises:
        InputError: No tensor, another dtype than float32 or float64, no sample, or one entry without a batch.
    """
    require(isinstance(x, Tensor), f"The inputs must be a tensor; given {type(x).__name__}. Try torch.as_tensor(x).")
    require(
        x.is_floating_point() and x.dtype not in _HALF,
        f"The inputs must be floating-point numbers of 32 or 64 bits; given {x.dtype}. Images of bytes become x / 255.",
    )
    require(x.ndim >= 2, f"The inputs must hold one entry a sample, (N, ...); given {tuple(x.shape)}. Try x[None].")
    require(x.numel() > 0, f"There is no sample; given inputs of shape {tuple(x.shape)}.")


def class_numbers(labels: Labels) -> Tensor:
    """Return labels as int64: a tensor where it lies, lists and arrays of integers on the CPU.

    Raises:
        InputError: No integers.

    Example:
        >>> class_numbers([2, 0])
        tensor([2, 0])
    """
    try:
        # Of an array a copy: PyTorch warns of those that cannot be written, and takes no negative strides.
        found = torch.as_tensor(labels.copy() if isinstance(labels, np.ndarray) else labels)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"Labels are integer classes, a tensor (n,); given a {type(labels).__name__}.") from error
    require(
        not found.is_floating_point() and found.dtype != torch.bool and not found.is_complex(),
        f"Labels are integer classes; given {found.dtype}. Of probabilities or one-hot rows take .argmax(1).",
    )
    return found.detach().long()


def _labels_of(labels: Labels, n: int) -> Tensor:
    numbers = class_numbers(labels)
    require(
        numbers.shape == (n,),
        f"{n} inputs need as many labels, shape ({n},); given {tuple(numbers.shape)}.",
    )
    return numbers.cpu()


def _check_logits(logits: Tensor, n: int) -> int:
    require(
        logits.ndim == 2 and len(logits) == n,
        f"The model must return logits (n, c), one row a sample; for {n} samples it returned {tuple(logits.shape)}.",
    )
    require(
        logits.shape[1] > 1,
        "The model has one logit a sample. The cross-entropy over one class is 0 everywhere and has no curvature. For "
        "a logistic model give two logits: torch.cat([torch.zeros_like(z), z], 1).",
    )
    return logits.shape[1]
