"""The loss that training minimises in a network with batch normalisation, and its Hessian.

In train mode each batch is normalised by its own mean and variance, which depend on the weights; in eval mode by
running statistics, which do not. These are two functions of the weights, with two Hessians.
"""

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from hbanalysis.errors import InputError, require
from hbanalysis.operators import WeightHessian, structures
from hbanalysis.operators.guards import unwrapped
from hbanalysis.operators.losses import IGNORED, Loss, PerSampleLoss
from hbanalysis.operators.objective import Forward, call, logits_of
from hbanalysis.operators.samples import checked
from hbanalysis.operators.torch_losses import resolve

_KNOWN = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
_RUNNING = ("running_mean", "running_var", "num_batches_tracked", "momentum", "track_running_stats")


@torch.inference_mode(False)
def train_mode_hessian(
    model: nn.Module,
    inputs: Any,
    targets: Any,
    batch_size: int,
    *,
    loss: str | PerSampleLoss | Loss = "cross_entropy",
    seed: int = 0,
    parameters: str | Sequence[str] | None = None,
    weight_decay: float = 0.0,
    ignore_index: int = IGNORED,
    forward: Forward | None = None,
    chunk_size: int = 1,
    memory_budget: int | None = None,
    engine: str = "auto",
) -> WeightHessian:
    r"""Return the Hessian of the train-mode loss, differentiated through the statistics of each batch.

    .. math:: H_B = \nabla^2_\theta \; \frac1N \sum_b \sum_{i \in b} \ell\bigl(f(x_i; \theta, \mu_b(\theta),
        \sigma^2_b(\theta)), y_i\bigr)

    The set is cut once into random batches b of B samples, and a sample's outputs depend on the batch that it is in, as
    in a step of training. In all else the model is in eval mode: dropout stays off. Only batch normalisation by the
    layers of PyTorch is known; a model that calls ``torch.nn.functional.batch_norm`` itself stays as it is.

    A layer with :math:`f(c w) = f(w)` for every c > 0, as in front of batch normalisation, has :math:`w^T g = 0` and
    :math:`H_B w = -g` there; see `WeightHessian` for the Hessian in eval mode, which has no such law.

    Args:
        model: Holds batch normalisation. Its weights are shared, so that steps of an optimiser are seen; running
            statistics are neither read nor written.
        inputs: A tensor ``(N, ...)``, or a tuple or dict of tensors.
        targets: Targets ``(N,)`` or ``(N, ...)``; for a callable of your own also a tuple or dict of such tensors.
        batch_size: Samples B that share their statistics, in 2..N. The last N mod B samples of the random order would
            make a smaller batch, with noisier statistics; they are left out. ``total`` of the result is the number of
            samples (or tokens) that count.
        loss: See `WeightHessian`; the mean is over all samples, whatever their batch.
        seed: Seed of the random batches; the same on every device.
        parameters: See `WeightHessian`.
        weight_decay: See `WeightHessian`.
        ignore_index: See `WeightHessian`.
        forward: How the model is called on one batch.
        chunk_size: Batches differentiated at once, each by itself.
        memory_budget: See `WeightHessian`.
        engine: See `WeightHessian`.

    Returns:
        An operator whose "samples" are the batches: ``H.part([0])`` is the Hessian of the first batch. Parameters have
        the names and the order of the model's, so that vectors of either mode can be compared.

    Cost: that of `WeightHessian` on as many samples, and a copy of the inputs. A chunk is one batch at least.

    Raises:
        InputError: The model has no batch normalisation, or one of a kind that is not known, or cannot be copied;
            ``batch_size`` is out of range; numbers of inputs and targets differ. In a product: the model reads running
            statistics of a layer; see also `WeightHessian`.

    Example:
        Batch normalisation undoes the scale of the weight before it, and turns 1 and 3 into -1 and 1:

        >>> model = torch.nn.Sequential(torch.nn.Linear(1, 1, bias=False), torch.nn.BatchNorm1d(1, eps=0.0))
        >>> x, y = torch.tensor([[1.0], [3.0]]), torch.zeros(2, 1)
        >>> with torch.no_grad():
        ...     _ = model[0].weight.fill_(1.0)
        >>> (train_mode_hessian(model, x, y, 2, loss="squared_error") @ torch.tensor([1.0, 1.0, 1.0])).round().abs()
        tensor([0., 2., 2.])
        >>> WeightHessian(model, x, y, loss="squared_error") @ torch.tensor([1.0, 0.0, 0.0])
        tensor([10., 20.,  4.])
    """
    given = checked(inputs, targets)
    inputs, targets, count = given.inputs, given.targets, len(given)
    require(
        2 <= batch_size <= count,
        f"batch_size must lie in 2..{count}, the number of samples: one sample has no variance; given {batch_size}.",
    )
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))[: count - count % batch_size]
    batches, labels = structures.mapped(
        lambda t: t[order.to(t.device)].unflatten(0, (-1, batch_size)), (inputs, targets)
    )
    return WeightHessian(
        _normalising_by_batch(unwrapped(model)),
        batches,
        labels,
        loss=_OfBatches(loss if isinstance(loss, Loss) else resolve(loss, ignore_index)),
        parameters=parameters,
        weight_decay=weight_decay,
        forward=_BatchByBatch(forward or call),
        chunk_size=chunk_size,
        memory_budget=memory_budget,
        engine=engine,
    )


class _BatchStatistics(nn.Module):
    """Batch normalisation by the statistics of the batch at hand, in any mode, with the weights of a given layer.

    Made of elementary operations: the second derivative of PyTorch's own, in float32 on a CPU, was off by a hundredth
    where these are right to 1e-6 (C1, channels last), and not every product with it could be traced.
    """

    def __init__(self, layer: _BatchNorm) -> None:
        super().__init__()
        self.weight, self.bias, self.eps = layer.weight, layer.bias, layer.eps
        self.num_features, self.affine = layer.num_features, layer.affine  # what a model may ask of its layer

    def __getattr__(self, name: str) -> Any:
        if name in _RUNNING:
            raise InputError(
                f"The model reads {name} of a layer of batch normalisation, which has no running statistics here: it "
                "normalises by each batch. Call the layer itself, layer(x), in place of a function with its statistics."
            )
        return super().__getattr__(name)

    def forward(self, x: Tensor) -> Tensor:
        others = (0, *range(2, x.ndim))  # every axis but that of the channels
        variance, mean = torch.var_mean(x, others, correction=0, keepdim=True)
        scale = torch.rsqrt(variance + self.eps)
        shape = (1, -1, *(1 for _ in others[1:]))
        if self.weight is not None:
            scale = scale * self.weight.view(shape)
        normalised = (x - mean) * scale
        return normalised if self.bias is None else normalised + self.bias.view(shape)


def _normalising_by_batch(model: nn.Module) -> nn.Module:
    """Return a copy with the same parameters and buffers whose batch normalisation is in train mode for good."""
    found = [(name, module) for name, module in model.named_modules() if isinstance(module, _BatchNorm)]
    require(
        bool(found),
        "The model has no batch normalisation, so its loss does not depend on how samples are put into batches. Use "
        "WeightHessian(model, inputs, targets).",
    )
    for name, module in found:
        # A subclass may do more than normalise: some add an activation.
        require(
            type(module) in _KNOWN,
            f"{name!r} is {type(module).__name__}, and what it does in train mode is not known. Layers may be "
            f"{', '.join(kind.__name__ for kind in _KNOWN)}; put one of these in its place.",
        )
    # The deprecated weight normalisation keeps a weight that it computed, and computes it anew in every call.
    computed = [t for module in model.modules() for t in vars(module).values() if isinstance(t, Tensor) and t.grad_fn]
    shared = {id(t): t for t in (*model.parameters(), *model.buffers(), *computed)}
    try:
        twin = copy.deepcopy(model, shared)
    except (RuntimeError, TypeError) as error:
        raise InputError(
            f"Batch normalisation is replaced in a copy of the model, and copy.deepcopy(model) fails: {error} Take out "
            "of the model what cannot be copied, such as outputs kept from a call."
        ) from error
    made: dict[nn.Module, nn.Module] = {}

    def changed(module: nn.Module) -> nn.Module:
        if isinstance(module, _BatchNorm) and module not in made:
            made[module] = _BatchStatistics(module)
        return made.get(module, module)

    for parent in list(twin.modules()):
        for name, child in parent._modules.items():  # named_children() would leave out a layer's second name
            if child is not None:
                parent._modules[name] = changed(child)
    return changed(twin)


class _BatchByBatch:
    """Calls a model on each of some batches, ``(b, B, ...)``, and stacks the outputs."""

    def __init__(self, forward: Forward) -> None:
        self._forward = forward

    def __call__(self, model: nn.Module, inputs: Any) -> Tensor:
        batches = (self._one(inputs, number) for number in range(len(structures.leaves(inputs)[0])))
        outputs = [logits_of(self._forward(model, batch)) for batch in batches]
        if not all(isinstance(output, Tensor) for output in outputs):
            raise InputError(
                f"One tensor of outputs is needed; the model returned {type(outputs[0]).__name__}. Pick the tensor by "
                "forward=lambda model, inputs: model(inputs)[0], say."
            )
        return torch.stack(outputs)

    @staticmethod
    def _one(inputs: Any, number: int) -> Any:
        return structures.mapped(lambda t: t[number], inputs)


class _OfBatches(Loss):
    """A loss of samples as a loss of whole batches: outputs and targets ``(b, B, ...)`` in, ``b`` sums out.

    Targets may be tuples or dicts of tensors if the loss of samples takes them.
    """

    def __init__(self, inner: Loss) -> None:
        super().__init__(inner.terms)
        self._inner, self.relative, self.whole = inner, inner.relative, inner.whole

    def terms(self, outputs: Tensor, targets: Any) -> Tensor:
        """Return the sum of the losses of each batch."""
        return _sums(self._inner.terms(*_of_samples((outputs, targets))), targets)

    def counts(self, targets: Any) -> Tensor:
        """Return what each batch adds to the divisor of the mean."""
        return _sums(self._inner.counts(_of_samples(targets)), targets)

    def check(self, outputs: Tensor, targets: Any) -> None:
        """Raise `InputError` if the targets cannot belong to the outputs."""
        self._inner.check(*_of_samples((outputs, targets)))

    def check_form(self, targets: Any) -> None:
        """Raise `InputError` for targets of several tensors where the loss takes one."""
        self._inner.check_form(_of_samples(targets))

    def doubts(self, outputs: Tensor, targets: Any) -> Tensor:
        """Return the sum of 1 - p_y over each batch."""
        return _sums(self._inner.doubts(*_of_samples((outputs, targets))), targets)


def _of_samples(batches: Any) -> Any:
    """Return tensors ``(b, B, ...)`` as ``(b B, ...)``."""
    return structures.mapped(lambda t: t.flatten(0, 1), batches)


def _sums(each: Any, targets: Any) -> Tensor:
    """Return the sums over each batch of one value a sample.

    Raises:
        InputError: There is not one value a sample.
    """
    shape = tuple(structures.first(targets).shape[:2])
    fits = isinstance(each, Tensor) and each.shape == (shape[0] * shape[1],)
    given = f"shape {tuple(each.shape)}" if isinstance(each, Tensor) else type(each).__name__
    require(
        fits,
        f"The loss must return one value a sample, shape ({shape[0] * shape[1]},); it returned {given}. Use "
        "reduction='none', or give a loss that has a reduction, such as nn.MSELoss().",
    )
    return each.view(shape).sum(1)
