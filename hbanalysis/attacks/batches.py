"""Arguments that every attack takes: checked, and cut into chunks that fit into memory."""

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from hbanalysis.attacks.geometry import Clip, clipped
from hbanalysis.attacks.gradients import SOFTMAX, logits_of
from hbanalysis.errors import InputError, require, unknown_name
from hbanalysis.inputs.logits import Labels, check_samples_apart, class_numbers
from hbanalysis.memory import available
from hbanalysis.operators.guards import check_model, differentiation, unwrapped
from hbanalysis.operators.products import graph_bytes

Attack = Callable[[nn.Module, Tensor, Tensor], Tensor]  # an attack of fixed size: (model, x, labels) -> x_adv
Step = Callable[[nn.Module, Tensor, Tensor, Tensor], Tensor]  # the same for a chunk with one eps (n,) a sample

_LARGEST = {"cpu": 256, "cuda": 1024}
_PROBES = 2  # samples whose graphs tell the memory a sample takes, and whether samples mix
_WORKING = 6  # a second derivative holds the graph of the forward pass a few times over


def attacked(
    step: Step, model: nn.Module, x: Tensor, labels: Labels, eps: float | Tensor, clip: Clip, batch_size: int | None
) -> Tensor:
    """Run an attack chunk by chunk and clamp its results; the model is left as it was.

    Args:
        step: The attack on one chunk.
        model: Maps images to logits.
        x: Images ``(n, ...)``.
        labels: True labels ``(n,)``.
        eps: Size of the perturbations, one for all or ``(n,)``.
        clip: Range of valid images, or ``None``.
        batch_size: Samples in a chunk; ``None`` takes 256 on a CPU, 1024 on a GPU, fewer if memory asks for it.

    Raises:
        InputError: See `check_images` and `sizes`.
        NumericalError: The model's output is not finite.
    """
    model = unwrapped(model)
    numbers = check_images(model, x, labels, clip)
    radii = sizes(eps, x)
    with differentiation(model):
        x, numbers, radii = _owned(x), _owned(numbers), _owned(radii)
        results = [
            clipped(step(model, x[rows], numbers[rows], radii[rows]), clip) for rows in chunks(model, x, batch_size)
        ]
        return torch.cat(results).detach() if results else x.clone()


def chunks(model: nn.Module, x: Tensor, batch_size: int | None) -> Iterator[slice]:
    """Yield the rows of each chunk. Runs inside `guards.differentiation`.

    Cost: a forward and a backward pass of two samples.

    Raises:
        InputError: ``batch_size`` is less than 1, or the model mixes the samples of a batch.
    """
    require(batch_size is None or batch_size >= 1, f"batch_size must be at least 1, or None; given {batch_size}.")
    if len(x) == 0:
        return
    needed = _WORKING * _graph_bytes(model, x)
    size = batch_size or _fitting(x.device, needed)
    for start in range(0, len(x), size):
        yield slice(start, start + size)


def check_images(model: nn.Module, x: Tensor, labels: Labels, clip: Clip) -> Tensor:
    """Return the labels, int64; raise `InputError` unless images and labels can be attacked. Reads the device once.

    Raises:
        InputError: Images that are no tensor, integers, in another dtype or on another device than the model, not
            finite, or out of the range ``clip``; labels of another length, kind or device; a model whose layers take
            statistics from the batch.
    """
    check_model(model)
    require(isinstance(x, Tensor), f"Images must be a tensor; given {type(x).__name__}. Try torch.as_tensor(x).")
    require(
        x.dtype in (torch.float32, torch.float64),
        f"Images must be float32 or float64, in units of [0, 1]; given {x.dtype}. For bytes use x.float() / 255.",
    )
    require(x.ndim >= 2, f"Images are a batch (n, ...); given shape {tuple(x.shape)}. For one image use x[None].")
    numbers = numbers_of(labels, x)
    require(
        numbers.shape == x.shape[:1],
        f"{len(x)} images need as many labels; given {len(numbers) if numbers.ndim == 1 else tuple(numbers.shape)}.",
    )
    weights = next((p for p in model.parameters() if p.is_floating_point()), x)
    devices = sorted({str(t.device) for t in (x, numbers, weights)})
    require(
        len(devices) == 1,
        f"Model ({weights.device}), images ({x.device}) and labels ({numbers.device}) must lie on one device; "
        "use .to(device).",
    )
    require(
        weights.dtype == x.dtype,
        f"The images are {x.dtype}, the weights {weights.dtype}; use x.to({weights.dtype}) or a copy of the model.",
    )
    _check_range(x, clip)
    return numbers


def numbers_of(labels: Labels, x: Tensor) -> Tensor:
    """Return labels as int64; lists and arrays are taken to where the images lie.

    Raises:
        InputError: No integers.
    """
    numbers = class_numbers(labels)
    return numbers if isinstance(labels, Tensor) else numbers.to(x.device)


def sizes(eps: float | Tensor, x: Tensor) -> Tensor:
    """Return the size of each sample's perturbation, ``(n,)`` in float64.

    Raises:
        InputError: A size is negative or not finite, or there is not one for each sample.
    """
    given = torch.as_tensor(eps, dtype=torch.float64, device=x.device)
    require(
        given.ndim == 0 or given.shape == x.shape[:1],
        f"eps is a number, or one for each of the {len(x)} samples; given shape {tuple(given.shape)}.",
    )
    wrong = given[~(given >= 0) | given.isinf()]
    if wrong.numel():
        raise InputError(
            f"eps is a distance, at least 0 and finite, in the units of the images; given {wrong.flatten()[0]:g}."
        )
    return given.expand(len(x)).clone()


def check_choices(softmax: str, **counts: int) -> None:
    """Raise `InputError` for an unknown softmax or a count below 1.

    Raises:
        InputError: Names what was given.
    """
    if softmax not in SOFTMAX:
        raise unknown_name("softmax", softmax, SOFTMAX)
    for name, count in counts.items():
        require(count >= 1, f"{name} must be at least 1; given {count}.")


def _check_range(x: Tensor, clip: Clip) -> None:
    if clip is not None:
        ordered = len(clip) == 2 and clip[0] < clip[1] and all(math.isfinite(bound) for bound in clip)
        require(ordered, f"clip is a pair (low, high) of finite numbers, or None; given {clip}.")
    if x.numel() == 0:
        return
    low, high = torch.stack(torch.aminmax(x.detach())).tolist()
    require(math.isfinite(low) and math.isfinite(high), "The images hold NaN or infinity; check how they were made.")
    require(
        clip is None or (clip[0] <= low and high <= clip[1]),
        f"The images lie in [{low:.9g}, {high:.9g}], outside clip={clip}. Attack images in units of [0, 1] through a "
        "model that normalises them itself, as nn.Sequential(Normalize(...), model); or give clip= the range of your "
        "images, or None.",
    )


def _owned(t: Tensor) -> Tensor:
    """Tensors made under ``torch.inference_mode`` cannot enter a graph."""
    return t.clone() if t.is_inference() else t.detach()


def _fitting(device: torch.device, needed: float) -> int:
    """Return how many samples to differentiate at once if one takes so many bytes."""
    largest = _LARGEST.get(device.type, _LARGEST["cuda"])
    return max(min(largest, int(available(device) / 2 / max(needed, 1))), 1)


def _graph_bytes(model: nn.Module, x: Tensor) -> float:
    """Return the bytes that the graph of the logits keeps for a sample, and refuse a model that mixes samples.

    Raises:
        InputError: See `check_samples_apart`.
    """
    known = {t.untyped_storage().data_ptr() for t in (*model.parameters(), *model.buffers())}
    probe = x[[place % len(x) for place in range(_PROBES)]].requires_grad_(True)  # one sample stands twice

    def build() -> None:
        check_samples_apart(logits_of(model, probe), probe)

    try:
        return graph_bytes(build, known) / _PROBES
    except RuntimeError:  # without a derivative nothing is kept; an attack says so where it takes one
        return 0.0
