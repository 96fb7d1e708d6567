"""What a second derivative needs of a model and of PyTorch, and how both are left as they were."""

import random
import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parameter import is_lazy

from hbanalysis.errors import InputError, require

_HALF = (torch.float16, torch.bfloat16)
_CAUSES = (
    (r"compile.*double backward", "torch.compile", "Give the model as it was before torch.compile."),
    (r"use_reentrant=True", "torch.utils.checkpoint", "Call it with use_reentrant=False."),
    (
        r"derivative for '?(?:aten::)?(\w+)'? is not implemented",
        "",
        "Replace it by operations that PyTorch can differentiate twice.",
    ),
    (r"(\w+_backward\w*).*not (?:differentiable|implemented)", "", "Replace it by a twice differentiable operation."),
)


def unwrapped(model: nn.Module) -> nn.Module:
    """Return the module inside ``DistributedDataParallel``, ``DataParallel`` or ``torch.compile``.

    The wrappers add nothing to a Hessian, and a compiled module has no double backward.
    """
    wrappers = (nn.parallel.DistributedDataParallel, nn.DataParallel)
    inner = model.module if isinstance(model, wrappers) else getattr(model, "_orig_mod", None)
    return unwrapped(inner) if isinstance(inner, nn.Module) else model


def check_model(model: nn.Module) -> None:
    """Raise `InputError` for a model whose Hessian would be wrong or meaningless.

    Raises:
        InputError: Half-precision or uninitialised parameters, several devices, or batch normalisation by the batch.
    """
    for name, p in model.named_parameters():
        require(not is_lazy(p), f"The parameter {name!r} is not initialised; call the model once on a batch.")
        require(
            p.dtype not in _HALF,
            f"The parameter {name!r} is {p.dtype}: 16 bits keep no second derivatives. "
            "Use copy.deepcopy(model).float().",
        )
    devices = sorted({str(p.device) for p in model.parameters()})
    require(len(devices) <= 1, f"The parameters lie on several devices ({', '.join(devices)}); move the model to one.")
    for name, module in model.named_modules():
        require(
            not isinstance(module, _BatchNorm) or module.running_mean is not None,
            f"{name!r} has no running statistics (track_running_stats=False), so a sample's output depends on its "
            "batch and the loss is no mean over samples. Use GroupNorm, or track running statistics.",
        )


def versions(model: nn.Module) -> tuple[int, ...]:
    """Return counters that change when a parameter or buffer is replaced or written in place."""
    tensors = [t for t in (*model.parameters(), *model.buffers()) if not t.is_inference()]
    return tuple(number for t in tensors for number in (id(t), t.data_ptr(), t._version))


def weights_sum(model: nn.Module) -> float:
    """Return the sum of parameters and buffers in float64, which sees writes through ``.data`` as well.

    Cost: one pass over the weights.
    """
    tensors = [t.detach() for t in (*model.parameters(), *model.buffers())]
    sums = [t.sum(dtype=torch.float64) for t in tensors if not t.is_complex()]
    return float(torch.stack(sums).sum()) if sums else 0.0


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Put every submodule in eval mode and restore each one's own mode afterwards."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


@contextmanager
def differentiation(model: nn.Module, grad: bool = True) -> Iterator[None]:
    """Run a block in which the model can be differentiated twice, and leave everything as it was.

    Eval mode; gradients on (with ``grad=False`` off), also inside ``torch.no_grad`` and ``torch.inference_mode``;
    attention on the math kernel and outside its fused inference path; cuDNN off for recurrent layers; no TF32. Modes,
    buffers, PyTorch's settings and the random states of PyTorch, NumPy and Python are restored.
    """
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.set_grad_enabled(grad))
        stack.enter_context(_random_states(model))
        stack.enter_context(_buffers(model))
        stack.enter_context(evaluation_mode(model))
        stack.enter_context(_exact_kernels(model))
        yield


@contextmanager
def twice_differentiable() -> Iterator[None]:
    """Turn PyTorch's error about a missing second derivative into an `InputError` that names the operation."""
    try:
        yield
    except RuntimeError as error:
        for pattern, name, advice in _CAUSES:
            found = re.search(pattern, str(error), re.DOTALL)
            if found:
                operation = name or re.sub(r"^_+|_backward.*$", "", found.group(1))
                raise InputError(
                    f"The operation {operation} cannot be differentiated twice, so the loss "
                    f"has no Hessian here. {advice}"
                ) from error
        raise


@contextmanager
def _random_states(model: nn.Module) -> Iterator[None]:
    devices = sorted({p.device.index for p in model.parameters() if p.device.type == "cuda"})
    states = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=devices):
        try:
            yield
        finally:
            random.setstate(states[0])
            np.random.set_state(states[1])


@contextmanager
def _buffers(model: nn.Module) -> Iterator[None]:
    kept = [(b, b._version, b.detach().clone()) for b in model.buffers() if not b.is_inference()]
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, version, values in kept:
                if buffer._version != version:
                    buffer.copy_(values)


@contextmanager
def _exact_kernels(model: nn.Module) -> Iterator[None]:
    recurrent = any(isinstance(module, nn.RNNBase) for module in model.modules())
    backends: Any = torch.backends
    rounded = (
        *(backends.cuda.matmul, backends.cudnn.conv, backends.cudnn.rnn),
        *(backends.mkldnn.matmul, backends.mkldnn.conv, backends.mkldnn.rnn),
    )
    precisions = [backend.fp32_precision for backend in rounded]
    enabled, fast = backends.cudnn.enabled, backends.mha.get_fastpath_enabled()
    try:
        for backend in rounded:
            backend.fp32_precision = "ieee"
        backends.cudnn.enabled = enabled and not recurrent
        backends.mha.set_fastpath_enabled(False)
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        for backend, precision in zip(rounded, precisions, strict=True):
            backend.fp32_precision = precision
        backends.cudnn.enabled = enabled
        backends.mha.set_fastpath_enabled(fast)


def once_differentiable_functions(roots: Sequence[Tensor], gradient: Sequence[Tensor]) -> list[str]:
    """Return the custom functions in some graphs whose second derivative autograd would leave out without a word.

    A backward pass marked ``@once_differentiable`` ends in an error node that hangs on no weight, so a derivative in
    the weights never meets it. Cost: a walk through the graph.
    """
    if not any(node.name() == "torch::autograd::Error" for root in gradient for node in _nodes(root)):
        return []
    return _custom_functions(roots)


def _custom_functions(roots: Sequence[Tensor]) -> list[str]:
    """Names of the Python autograd functions in some tensors' graphs, without autograd's suffix."""
    kind = torch.autograd.function.BackwardCFunction
    nodes = (node for root in roots for node in _nodes(root) if isinstance(node, kind))
    return sorted({type(node).__name__.removesuffix("Backward") for node in nodes})


def _nodes(root: Tensor) -> Iterator[Any]:
    seen: set[Any] = set()
    waiting: list[Any] = [root.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is not None and node not in seen:
            seen.add(node)
            yield node
            waiting.extend(parent for parent, _ in node.next_functions)
