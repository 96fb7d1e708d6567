"""What a second derivative needs of a model and of PyTorch, and how both are left as they were."""

import random
import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parameter import is_lazy
from torch.nn.utils.parametrizations import _WeightNorm
from torch.nn.utils.weight_norm import WeightNorm

from hbanalysis.errors import InputError, require

HALF = (torch.float16, torch.bfloat16)
_EXACT = ("ieee", "none")  # settings under which float32 is computed in float32
_WRONG = {"WeightNormInterfaceBackward0"}  # operations whose second derivative PyTorch has wrong, as autograd has them
_PERIOD = 1021  # prime, so that swapped rows or columns of a weight matrix do not fall on the same place
_CAUSES = (
    (r"compile.*double backward|donated buffers", "torch.compile", "Give the model as it was before torch.compile."),
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


def check_model(model: Any) -> None:
    """Raise `InputError` for a model whose Hessian would be wrong or meaningless.

    Raises:
        InputError: Half-precision or uninitialised parameters, several devices, or batch normalisation by the batch.
    """
    require(
        isinstance(model, nn.Module),
        f"The model must be a torch.nn.Module; given {type(model).__name__}. A function of a module goes into "
        "forward=lambda model, inputs: ...",
    )
    for name, p in model.named_parameters():
        require(not is_lazy(p), f"The parameter {name!r} is not initialised; call the model once on a batch.")
        require(
            p.dtype not in HALF,
            f"The parameter {name!r} is {p.dtype}: 16 bits keep no second derivatives. "
            "Use copy.deepcopy(model).float().",
        )
        require(
            not p.is_complex(), f"The parameter {name!r} is complex ({p.dtype}); only real weights have a Hessian here."
        )
    devices = sorted({str(p.device) for p in model.parameters()})
    require(len(devices) <= 1, f"The parameters lie on several devices ({', '.join(devices)}); move the model to one.")
    for name, module in model.named_modules():
        require(
            not (isinstance(module, nn.Embedding) and module.sparse),
            f"{name!r} is an embedding with sparse gradients, which have no second derivative; set sparse=False.",
        )
        require(
            not (isinstance(module, nn.Embedding | nn.EmbeddingBag) and module.max_norm is not None),
            f"{name!r} is an embedding with max_norm, which changes its weights whenever it is called; set it to None.",
        )
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
    """Return a checksum of parameters and buffers, which sees writes through ``.data`` as well.

    Cost: one pass over the weights.
    """
    return checksum([t.detach() for t in (*model.parameters(), *model.buffers())])


def checksum(tensors: Sequence[Tensor]) -> float:
    """Return the sum of all entries in float64, each times its place in a period of primes, so that order counts.

    Example:
        >>> checksum([torch.tensor([1.0, 2.0])]), checksum([torch.tensor([2.0, 1.0])])
        (5.0, 4.0)
    """
    found = [_weighed(t.reshape(-1)) for t in tensors if not t.is_complex()]
    return float(torch.stack(found).sum()) if found else 0.0


def _weighed(flat: Tensor) -> Tensor:
    whole = len(flat) - len(flat) % _PERIOD
    sums = flat[:whole].view(-1, _PERIOD).sum(0, dtype=torch.float64)
    sums[: len(flat) - whole] += flat[whole:]
    return sums @ torch.arange(1.0, _PERIOD + 1, dtype=torch.float64, device=flat.device)


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
    attention on the math kernel and outside its fused inference path; cuDNN off for recurrent layers; no TF32, no
    autocast; compiled modules run as they were before ``torch.compile``; weight normalisation by its formula. Modes,
    buffers, PyTorch's settings and the random states of PyTorch, NumPy and Python are restored.
    """
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.set_grad_enabled(grad))
        for kind in sorted({"cpu", *(p.device.type for p in model.parameters())}):
            stack.enter_context(torch.autocast(kind, enabled=False))
        if any(_is_compiled(module) for module in model.modules()):
            stack.enter_context(torch.compiler.set_stance("force_eager"))
        stack.enter_context(_random_states(model))
        stack.enter_context(_buffers(model))
        stack.enter_context(evaluation_mode(model))
        stack.enter_context(_exact_kernels(model))
        stack.enter_context(_weights_normalised(model))
        yield


def _is_compiled(module: nn.Module) -> bool:
    """Tell whether a module went through ``torch.compile`` or ``module.compile()``; it has no double backward then."""
    return getattr(module, "_compiled_call_impl", None) is not None or hasattr(module, "_orig_mod")


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
    places = [(module, dict(module._buffers)) for module in model.modules() if module._buffers]
    try:
        yield
    finally:
        for module, own in places:
            module._buffers.update(own)
        with torch.no_grad():
            for buffer, version, values in kept:
                if buffer._version != version:
                    buffer.copy_(values)


@contextmanager
def _exact_kernels(model: nn.Module) -> Iterator[None]:
    recurrent = any(isinstance(module, nn.RNNBase) for module in model.modules())
    backends: Any = torch.backends
    every = (
        *(backends.cuda.matmul, backends.cudnn.conv, backends.cudnn.rnn),
        *(backends.mkldnn.matmul, backends.mkldnn.conv, backends.mkldnn.rnn),
    )
    # What is exact is not touched: writing a setting, even the one it has, unties it from that of all backends.
    rounded = [(one, one.fp32_precision) for one in every if one.fp32_precision not in _EXACT]
    enabled, fast = backends.cudnn.enabled, backends.mha.get_fastpath_enabled()
    try:
        for backend, _ in rounded:
            backend.fp32_precision = "ieee"
        backends.cudnn.enabled = enabled and not recurrent
        backends.mha.set_fastpath_enabled(False)
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        for backend, precision in rounded:
            backend.fp32_precision = precision
        backends.cudnn.enabled = enabled
        backends.mha.set_fastpath_enabled(fast)


@contextmanager
def _weights_normalised(model: nn.Module) -> Iterator[None]:
    """Let weight normalisation, in its present and its deprecated form, run by its formula.

    The second derivative of PyTorch's own operation takes the norms for constants, and is not even symmetric.
    """
    layers = [m for m in model.modules() if isinstance(m, _WeightNorm) and "forward" not in vars(m)]
    hooks = [(m, h) for m in model.modules() for h in m._forward_pre_hooks.values() if isinstance(h, WeightNorm)]
    hooks = [(m, h) for m, h in hooks if "compute_weight" not in vars(h)]
    weights = [(m, h.name, vars(m)[h.name]) for m, h in hooks]  # what the hook writes at every call
    for layer in layers:
        vars(layer)["forward"] = partial(_of_length, dim=layer.dim)
    for _, hook in hooks:
        vars(hook)["compute_weight"] = partial(_weight_of, hook)
    try:
        yield
    finally:
        for layer in layers:
            del vars(layer)["forward"]
        for _, hook in hooks:
            del vars(hook)["compute_weight"]
        for module, name, weight in weights:
            vars(module)[name] = weight


def _of_length(g: Tensor, v: Tensor, dim: int) -> Tensor:
    """Return :math:`g v / |v|`, with a norm for each entry along ``dim``, or a single one for -1."""
    return v * (g / torch.norm_except_dim(v, 2, dim))


def _weight_of(hook: WeightNorm, module: nn.Module) -> Tensor:
    return _of_length(getattr(module, f"{hook.name}_g"), getattr(module, f"{hook.name}_v"), hook.dim)


def wrongly_differentiated(roots: Sequence[Tensor]) -> list[str]:
    """Return the operations in some tensors' graphs whose second derivative PyTorch has wrong.

    Cost: a walk through the graph.
    """
    return sorted(re.sub(r"Backward\d*$", "", name) for name in operations(roots) & _WRONG)


def operations(roots: Sequence[Tensor]) -> set[str]:
    """Return the names of the operations in some tensors' graphs, as autograd has them."""
    return {node.name() for root in roots for node in _nodes(root)}


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
