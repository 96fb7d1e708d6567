"""Images inside rows: eight bits a value as hexadecimal digits, with the range they stand for."""

from collections.abc import Mapping
from typing import Any

import numpy as np

_LEVELS = 255


def encoded(image: Any) -> dict[str, Any]:
    """Return an image ``(C, H, W)``, a tensor or an array, as JSON data: its shape, range and values in 256 steps.

    Example:
        >>> decoded(encoded(np.array([[[0.0, 1.0]]]))).tolist()
        [[[0.0, 1.0]]]
    """
    values = np.asarray(image.detach().cpu() if hasattr(image, "detach") else image, dtype=float)
    low, high = float(values.min()), float(values.max())
    steps = np.round((values - low) / max(high - low, 1e-12) * _LEVELS).astype(np.uint8)
    return {
        "shape": list(values.shape),
        "low": low,
        "high": high,
        "hex": steps.tobytes().hex(),
    }


def decoded(entry: Mapping[str, Any]) -> np.ndarray:
    """Return the image ``(C, H, W)`` in float64, to within half a step of its range."""
    steps = np.frombuffer(bytes.fromhex(entry["hex"]), dtype=np.uint8).reshape(entry["shape"])
    return entry["low"] + steps / _LEVELS * (entry["high"] - entry["low"])
