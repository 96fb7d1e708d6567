"""Linear operators that are never formed: the Hessian of the mean loss in the weights, and its Gauss-Newton part.

An operator has ``shape``, ``dtype``, ``device``, ``products`` (columns multiplied so far), ``@`` and ``to_scipy()``.
"""

import copy
from collections.abc import Iterable

import torch
from jaxtyping import Float
from torch import Tensor

from hbanalysis.operators.means import MeanOperator
from hbanalysis.operators.objective import check_finite
from hbanalysis.operators.products import GaussNewtonEngine, GraphEngine
from hbanalysis.operators.tracing import TracedEngine


class WeightHessian(MeanOperator):
    r"""The Hessian of the mean loss over a whole data set, in the weights.

    .. math:: H = \nabla^2_\theta \; \frac{\sum_i w_i \, \ell(f_\theta(x_i), y_i)}{\sum_i w_i} + \lambda I

    The sum runs over samples, not batches, so the result does not depend on how the set is cut into chunks or batches.
    Products run in eval mode (batch normalisation uses its running statistics, as in the authors' code; see
    `hbanalysis.train_mode_hessian` for those of each batch), in full float32 or float64, whatever mode the model is in,
    also inside ``torch.no_grad`` and ``torch.inference_mode``. They leave everything as it was: modes, buffers,
    ``.grad``, ``requires_grad`` and the random states.

    Under ``torchrun`` the same call shares the samples among the processes, with one all-reduce a product; see
    `hbanalysis.distributed`.

    Args:
        model: Any module. Its parameters with ``requires_grad`` count, in the order of ``named_parameters()``, tied
            ones once; those that are not used have zero rows.
        data: Inputs, a tensor ``(N, ...)`` or a tuple or dict of tensors, with ``targets``; or a map-style ``Dataset``;
            or any re-iterable of batches ``(inputs, targets)``, ``(inputs, targets, weights)`` with weights of floating
            point, or dicts with ``"labels"`` or ``"targets"``. A tuple of inputs is given to the model as positional
            arguments, a dict as keyword arguments. Data are moved to the model's device, floating-point inputs to its
            dtype.
        targets: Targets ``(N,)`` or ``(N, ...)``; for a callable of your own also a tuple or dict of such tensors.
        loss: A name (see `losses.named`): ``"cross_entropy"`` for class labels and tokens (classes on the
            last axis; the mean is over all tokens of the set that count), ``"next_token"``,
            ``"binary_cross_entropy"``, ``"squared_error"``. Or a PyTorch loss such as
            ``nn.CrossEntropyLoss(label_smoothing=0.1)``: it is normalised over the whole set as PyTorch would in one
            batch, with class weights by the sum of the weights of the labels. Or a callable, ``(outputs, targets)`` to
            one loss a sample, which is given all that the model (or ``forward``) returns. A sample's loss may depend on
            nothing but that sample, which is checked on two of them.
        parameters: Name patterns that select a block of the Hessian; ``None`` takes every parameter.
        weights: Weights of the samples in the mean, ``(N,)``, not negative.
        weight_decay: The factor :math:`\lambda` of the penalty :math:`\lambda \|\theta\|^2 / 2`.
        ignore_index: Label that does not count, for the named cross-entropies.
        forward: How the model is called, ``(model, inputs) -> outputs``. Named and PyTorch's losses are given the
            ``logits`` of outputs that have some.
        chunk_size: Samples differentiated at once; memory grows with it. ``None`` measures a few sizes in the first
            product.
        memory_budget: Bytes that retained gradient graphs may take; ``None`` means a quarter of the memory free now
            (4 GiB at most) on a CPU, half of it on a GPU; 0 retains nothing. A retained chunk skips the forward and
            first backward pass of each later product.
        total: What the sum is divided by, for part of a larger set, which then has its share of the weight decay as
            well; ``None`` means the sum of the weights, N without.
        engine: How products are computed: ``"graph"`` differentiates autograd's graph of the gradient;
            ``"traced"`` replays a program traced once, some 1.3 times faster, if it agrees with the graphs;
            ``"auto"`` traces where the samples are worth the seconds that takes.

    Attributes:
        engine: What is in use: ``"graph"`` or ``"traced"``, and why a trace was refused.
        samples: N, over all processes.
        total: What the sum over samples is divided by.
        label_relative: Whether the loss is the cross-entropy from logits relative to the label, for which `doubts`
            tells how much curvature a sample can have.

    Cost: a product differentiates twice: a chunk that is recomputed costs the gradient as well (some 2.5 to 3
    gradients in all), one that is retained does not (1.5 to 2).

    Raises:
        InputError: Empty data, missing targets, a one-shot iterator, weights that are negative, half-precision
            parameters, parameters on several devices. In a product: samples whose losses depend on each other or on
            chance, parameters that were replaced since.
        NumericalError: The loss of a chunk is not finite; the message names the chunk.

    Example:
        A linear model under squared error has the Hessian 2 X'X / N:

        >>> x = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
        >>> H = WeightHessian(torch.nn.Linear(2, 1, bias=False), x, torch.zeros(2, 1), loss="squared_error")
        >>> H @ torch.tensor([1.0, 0.0])
        tensor([10., 14.])
    """

    _engine_type: type[GraphEngine] = TracedEngine

    def part(self, indices: Iterable[int] | Tensor, total: float | None = None) -> "WeightHessian":
        """Return the operator over some of the samples, with the same model, loss and settings.

        Args:
            indices: Numbers of the samples, ``(k,)``; one given twice counts twice.
            total: What the sum is divided by. ``None`` takes the part's own mean: ``H.part(range(320))`` is the
                sub-sampled Hessian of the paper's Fig. 6. ``H.total`` makes it a summand: parts that cover the set
                once then add up to H. Weight decay is shared among them as the samples are.

        A loader is gathered into memory first, once, if that fits ``memory_budget``.

        Raises:
            InputError: A number is out of range, or the loader does not fit.

        Example:
            >>> H = WeightHessian(torch.nn.Linear(1, 1, bias=False), torch.tensor([[1.0], [3.0]]), torch.zeros(2, 1),
            ...                   loss="squared_error")
            >>> H.part([1]) @ torch.ones(1), H.part([1], total=H.total) @ torch.ones(1)
            (tensor([18.]), tensor([9.]))
        """
        other = copy.copy(self)
        other.products = 0
        other._walk(self._indexable().part(indices), total)
        return other

    def gradient(self) -> Float[Tensor, " n"]:
        """Return the gradient of the mean loss. Cost: one gradient.

        Raises:
            NumericalError: The loss of a chunk is not finite.
        """

        def share() -> Tensor:
            total = torch.zeros(self.shape[0], dtype=torch.float64, device=self.device)
            for chunk in self._whole():
                loss = self._objective.total(chunk)
                check_finite([loss.detach()], [chunk.name])
                total += self.space.join(self._objective.gradient(loss, graph=False))
            return total

        total = self._summed(share, torch.zeros(self.shape[0], dtype=torch.float64, device=self.device))
        return (total / self.total + self.weight_decay * self.space.vector()).to(self.dtype)

    def loss(self) -> float:
        """Return the mean loss, the penalty of weight decay included. Cost: one forward pass.

        Raises:
            NumericalError: The loss of a chunk is not finite.
        """

        def share() -> Tensor:
            total = torch.zeros((), dtype=torch.float64, device=self.device)
            for chunk in self._whole():
                loss = self._objective.total(chunk).detach()  # gradients are on: a model may differentiate by itself
                check_finite([loss], [chunk.name])
                total += loss
            return total

        total = self._summed(share, torch.zeros((), dtype=torch.float64, device=self.device)).item()
        return total / self.total + self.weight_decay * self.space.vector().double().square().sum().item() / 2

    def doubts(self) -> Float[Tensor, " samples"]:
        r"""Return :math:`1 - p_y` of every sample in float64, with full relative precision, in the order of the data.

        A sample's curvature under cross-entropy scales with it. For token losses it is the sum over a sample's tokens
        that count. Weights of samples do not enter. A loader is gathered into memory first; see `part`.

        Cost: one forward pass.

        Raises:
            InputError: The loss is no cross-entropy of labels (see ``label_relative``).
        """
        self._indexable()

        def share() -> Tensor:
            found = torch.zeros(self.samples, dtype=torch.float64, device=self.device)
            parts = [self._objective.doubts(chunk) for chunk in self._whole()]
            if parts:
                found[self._rank :: self._world] = torch.cat(parts)
            return found

        return self._summed(share, torch.zeros(self.samples, dtype=torch.float64, device=self.device), grad=False)


class GaussNewton(WeightHessian):
    r"""The Gauss-Newton part of the Hessian of the mean loss, in the weights.

    .. math:: G = \frac{\sum_i w_i \, J_i^T S_i J_i}{\sum_i w_i} + \lambda I

    with the Jacobian :math:`J_i` of a sample's outputs in the weights and the Hessian :math:`S_i` of its loss in the
    outputs. G has no negative eigenvalues if the loss is convex in the outputs, and it is the Fisher matrix for
    cross-entropy. ``H - G`` is the rest: the curvature of the network itself, weighted by the slopes of the loss.

    Takes the same arguments as `WeightHessian`; the model must return one tensor (or ``logits``).

    Cost: some 2 gradients a product for a retained chunk, 3 to 4 for one that is recomputed.

    Raises:
        InputError: See `WeightHessian`.
        NumericalError: See `WeightHessian`.

    Example:
        A linear model has nothing else:

        >>> x, y = torch.randn(5, 3, dtype=torch.float64), torch.arange(5) % 2
        >>> model = torch.nn.Linear(3, 2).double()
        >>> rest = WeightHessian(model, x, y) - GaussNewton(model, x, y)
        >>> bool((rest.dense().abs() < 1e-12).all())
        True
    """

    _engine_type = GaussNewtonEngine
