"""A module's parameters as one flat vector, and back."""

from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from fnmatch import fnmatchcase

import torch
from jaxtyping import Float
from torch import Tensor, nn

from hbanalysis.errors import InputError

_SHOWN = 12  # names that a message lists


class ParameterSpace:
    """The coordinates of theta: which parameters of a module count, in which order.

    The order is that of ``named_parameters()``. Only parameters that require a gradient count; tied parameters
    count once.

    Args:
        model: The module.
        patterns: Shell-style name patterns (``"conv*.weight"``); ``None`` selects every parameter.

    Raises:
        InputError: A pattern matches nothing, or no parameter requires a gradient.

    Example:
        >>> space = ParameterSpace(nn.Linear(2, 3))
        >>> space.names, space.size
        (('weight', 'bias'), 9)
    """

    def __init__(self, model: nn.Module, patterns: str | Sequence[str] | None = None) -> None:
        trainable = {name: p for name, p in model.named_parameters() if p.requires_grad}
        if not trainable:
            raise InputError(
                "The model has no parameter that requires a gradient, so it has no weight space. "
                "Call requires_grad_(True) on the parameters that should count."
            )
        wanted = [patterns] if isinstance(patterns, str) else patterns
        if wanted is not None:
            wanted = _patterns(wanted)
            for pattern in wanted:
                if not any(fnmatchcase(name, pattern) for name in trainable):
                    raise InputError(_no_match(pattern, list(trainable)))
            trainable = {n: p for n, p in trainable.items() if any(fnmatchcase(n, w) for w in wanted)}
        self.names = tuple(trainable)
        self.tensors = tuple(trainable.values())
        self.shapes = tuple(p.shape for p in self.tensors)
        self.sizes = tuple(p.numel() for p in self.tensors)
        self.size = sum(self.sizes)
        dtypes, devices = {p.dtype for p in self.tensors}, {p.device for p in self.tensors}
        if len(dtypes) > 1 or len(devices) > 1:
            raise InputError(
                f"All parameters must share one dtype and one device; given {sorted(map(str, dtypes))} on "
                f"{sorted(map(str, devices))}. Convert the model with .to(...) first."
            )
        self.dtype, self.device = dtypes.pop(), devices.pop()

    def check(self, model: nn.Module) -> None:
        """Raise `InputError` unless these are still the parameters of the model, as they were.

        Raises:
            InputError: One was replaced, frozen, or has another dtype or device; names it.
        """
        now = dict(model.named_parameters())
        for name, tensor, shape in zip(self.names, self.tensors, self.shapes, strict=True):
            change = ""
            if now.get(name) is not tensor:
                change = "was replaced (by load_state_dict(assign=True), or with its module)"
            elif not tensor.requires_grad:
                change = "was frozen"
            elif (tensor.dtype, tensor.device) != (self.dtype, self.device):
                change = f"is now {tensor.dtype} on {tensor.device}"
            elif tensor.shape != shape:
                change = f"has now the shape {tuple(tensor.shape)}"
            if change:
                raise InputError(f"The parameter {name!r} {change} after the operator was made; make a new operator.")

    def join(self, tensors: Iterable[Tensor | None]) -> Float[Tensor, " n"]:
        """Return one vector of shape ``(size,)``; ``None`` stands for zeros (a parameter that is not used)."""
        parts = [
            torch.zeros(size, dtype=self.dtype, device=self.device) if t is None else t.reshape(-1)
            for t, size in zip(tensors, self.sizes, strict=True)
        ]
        return torch.cat(parts)

    def split(self, vector: Float[Tensor, " n"]) -> tuple[Tensor, ...]:
        """Return views of ``vector`` with the shapes of the parameters.

        Raises:
            InputError: ``vector`` does not have ``size`` entries.
        """
        if vector.shape != (self.size,):
            raise InputError(f"A vector of shape ({self.size},) is needed; given {tuple(vector.shape)}.")
        parts = vector.split(self.sizes)
        return tuple(part.view(shape) for part, shape in zip(parts, self.shapes, strict=True))

    def vector(self) -> Float[Tensor, " n"]:
        """Return the current values as one detached vector (a copy)."""
        return self.join(p.detach() for p in self.tensors)

    @torch.no_grad()
    def assign(self, vector: Float[Tensor, " n"]) -> None:
        """Write ``vector`` into the parameters, in place."""
        for tensor, part in zip(self.tensors, self.split(vector), strict=True):
            tensor.copy_(part)

    def state(self) -> tuple[int, ...]:
        """Return the version counters: they change whenever a parameter is written in place or replaced."""
        return tuple(v for p in self.tensors for v in (id(p), p.data_ptr(), p._version))


def _patterns(given: Sequence[str]) -> list[str]:
    """Return name patterns after checking that they are some."""
    if isinstance(given, nn.Module | Tensor) or not isinstance(given, Sequence):
        kind = type(given).__name__
    elif not given:
        kind = "none"
    else:
        kind = next((type(one).__name__ for one in given if not isinstance(one, str)), "")
    if kind:
        raise InputError(
            f"parameters= takes name patterns, such as 'conv*.weight' or ['0.*', '2.*']; given {kind}. Names are those "
            "of model.named_parameters()."
        )
    return list(given)


def _no_match(pattern: str, names: list[str]) -> str:
    near = [name for name in names if name.startswith(pattern)] or get_close_matches(pattern, names, n=_SHOWN, cutoff=0)
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    shown = names if len(names) <= _SHOWN else near[:_SHOWN]
    hint = f" Did you mean '{pattern}*'?" if any(name.startswith(pattern) for name in names) else ""
    return f"The pattern {pattern!r} matches no parameter.{hint} Parameters: {', '.join(shown)}{more}."
