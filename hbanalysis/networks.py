"""The paper's five networks by name, for any input shape, number of classes and activation.

The layers follow the authors' public code where it exists and the networks that the paper cites elsewhere; parameter
counts are tests. No dropout, as the paper says.
"""

import math
import re
from collections.abc import Callable

import torch
from torch import Tensor, nn

from hbanalysis.errors import InputError, unknown_name

Activation = Callable[[], nn.Module]


def activation(name: str) -> Activation:
    """Return the maker of an activation: ``relu``, ``softplus(beta)`` or ``elu(alpha)``.

    Raises:
        InputError: The name is not of one of these three forms, or its number is not positive and finite.

    Example:
        >>> activation("softplus(20)")()
        Softplus(beta=20.0, threshold=20.0)
    """
    match = re.fullmatch(r"(relu)|(softplus|elu)\((\d+(?:\.\d+)?)\)", name, re.ASCII)
    if match is None:
        raise InputError(f"Unknown activation {name!r}. Use 'relu', 'softplus(20)' or 'elu(1)'.")
    if match[1]:
        return nn.ReLU
    number = float(match[3])
    if not 0 < number < math.inf:
        raise InputError(f"The parameter of an activation must be positive and finite; given {name!r}.")
    return (lambda: nn.Softplus(number)) if match[2] == "softplus" else (lambda: nn.ELU(number))


def _c1(channels: int, act: Activation) -> list[nn.Module]:
    """Two 5x5 convolutions, batch normalisation after the activation (the authors' ``c1_model``)."""
    block = []
    for inside in (channels, 64):
        block += [
            nn.Conv2d(inside, 64, 5, padding=2),
            act(),
            nn.BatchNorm2d(64),
            nn.MaxPool2d(3, 2, padding=1),
        ]
    return block


def _c2_c3(channels: int, act: Activation, normalise: bool) -> list[nn.Module]:
    """Four unpadded 3x3 convolutions; C2 has batch normalisation, C3 (Carlini and Wagner's net) has none."""
    layers: list[nn.Module] = []
    for inside, outside in ((channels, 64), (64, 128)):
        for first, second in ((inside, outside), (outside, outside)):
            layers += [nn.Conv2d(first, second, 3), act()]
            layers += [nn.BatchNorm2d(second)] if normalise else []
        layers.append(nn.MaxPool2d(2))
    return layers


def _m1(channels: int, act: Activation) -> list[nn.Module]:
    """LeNet with 20 and 50 feature maps."""
    return [
        nn.Conv2d(channels, 20, 5),
        act(),
        nn.MaxPool2d(2),
        nn.Conv2d(20, 50, 5),
        act(),
        nn.MaxPool2d(2),
    ]


class _Residual(nn.Module):
    """Two 3x3 convolutions with batch normalisation around a shortcut (He et al. 2016, basic block)."""

    def __init__(self, inside: int, outside: int, stride: int, act: Activation) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(inside, outside, 3, stride, padding=1, bias=False),
            nn.BatchNorm2d(outside),
            act(),
            nn.Conv2d(outside, outside, 3, padding=1, bias=False),
            nn.BatchNorm2d(outside),
        )
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inside != outside:
            self.shortcut = nn.Sequential(nn.Conv2d(inside, outside, 1, stride, bias=False), nn.BatchNorm2d(outside))
        self.activation = act()

    def forward(self, x: Tensor) -> Tensor:
        return self.activation(self.body(x) + self.shortcut(x))


def _cr(channels: int, act: Activation) -> list[nn.Module]:
    """ResNet-18 with the CIFAR stem: stages of two blocks with 64, 128, 256 and 512 maps."""
    layers: list[nn.Module] = [
        nn.Conv2d(channels, 64, 3, padding=1, bias=False),
        nn.BatchNorm2d(64),
        act(),
    ]
    inside = 64
    for outside, stride in ((64, 1), (128, 2), (256, 2), (512, 2)):
        layers += [_Residual(inside, outside, stride, act), _Residual(outside, outside, 1, act)]
        inside = outside
    return [*layers, nn.AdaptiveAvgPool2d(1)]


_FEATURES: dict[str, Callable[[int, Activation], list[nn.Module]]] = {
    "C1": _c1,
    "C2": lambda channels, act: _c2_c3(channels, act, normalise=True),
    "C3": lambda channels, act: _c2_c3(channels, act, normalise=False),
    "M1": _m1,
    "CR": _cr,
}
_HIDDEN = {"C1": (384, 192), "C2": (256, 256), "C3": (256, 256), "M1": (500,), "CR": ()}


def names() -> list[str]:
    """Return the names of the networks."""
    return list(_FEATURES)


def build(
    name: str,
    shape: tuple[int, int, int] = (3, 32, 32),
    classes: int = 10,
    *,
    activation_name: str = "relu",
    seed: int = 0,
    device: str | torch.device | None = None,
) -> nn.Sequential:
    """Build a network with PyTorch's default initialisation, drawn on the CPU so that every device gets the same.

    Args:
        name: ``C1``, ``C2``, ``C3``, ``M1`` or ``CR``.
        shape: Channels, height and width of an input.
        classes: Number of logits, at least 2.
        activation_name: See `activation`; it replaces every ReLU.
        seed: Seed of the initialisation; the global random state is left as it was.
        device: Where the parameters end up; ``None`` means the CPU.

    Raises:
        InputError: Unknown name or activation, fewer than 2 classes, or an input too small for the layers.

    Example:
        >>> sum(p.numel() for p in build("M1", (1, 28, 28)).parameters())
        431080
    """
    if name not in _FEATURES:
        raise unknown_name("network", name, _FEATURES)
    if classes < 2:
        raise InputError(f"A classifier needs at least 2 classes; given {classes}.")
    act = activation(activation_name)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would seed every device
        features = _FEATURES[name](shape[0], act)
        width = _flat_width(name, features, shape)
        layers: list[nn.Module] = [*features, nn.Flatten()]
        for hidden in _HIDDEN[name]:
            layers += [nn.Linear(width, hidden), act()]
            width = hidden
        layers.append(nn.Linear(width, classes))
    return nn.Sequential(*layers).to(device)


def has_batch_norm(model: nn.Module) -> bool:
    """Tell whether a model holds batch normalisation, so that a batch is more than the sum of its samples."""
    return any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in model.modules())


def _flat_width(name: str, features: list[nn.Module], shape: tuple[int, int, int]) -> int:
    body = nn.Sequential(*features).eval()
    try:
        with torch.no_grad():
            return body(torch.zeros(1, *shape)).numel()
    except RuntimeError as error:
        raise InputError(f"{name} cannot take inputs of shape {shape}: {error}") from error
    finally:
        body.train()
