"""Cells as data: frozen dataclasses to JSON and back, and with some of their fields replaced."""

import json
from collections.abc import Mapping
from dataclasses import asdict, fields, is_dataclass, replace
from typing import Any, get_type_hints

from hbanalysis.errors import InputError


def as_data(cell: Any) -> dict[str, Any]:
    """Return a dataclass as JSON data: tuples become lists.

    Example:
        >>> from hbanalysis.training import TrainingConfig
        >>> as_data(TrainingConfig("digits", "M1", 16))["batch_size"]
        16
    """
    return json.loads(json.dumps(asdict(cell)))


def from_data(kind: type, config: Mapping[str, Any], what: str) -> Any:
    """Return the dataclass of JSON data that `as_data` made; fields that are dataclasses are read the same way.

    Args:
        kind: The dataclass.
        config: Its fields by name.
        what: What this should be, for the error.

    Raises:
        InputError: A field is missing, unknown or out of range.
    """
    hints = get_type_hints(kind)
    try:
        values: dict[str, Any] = {}
        for name, value in config.items():
            hint = hints.get(name)
            if isinstance(hint, type) and is_dataclass(hint):
                values[name] = from_data(hint, value, what)
            else:
                values[name] = tuple(value) if isinstance(value, list) else value
        return kind(**values)
    except (AttributeError, TypeError) as error:
        raise InputError(f"This is no {what}: {error}.") from error


def changed(part: Any, chosen: Mapping[str, Any]) -> Any:
    """Return a dataclass with those of its fields replaced that ``chosen`` names.

    Example:
        >>> from hbanalysis.training import TrainingConfig
        >>> changed(TrainingConfig("digits", "M1", 16), {"seed": 3, "points": 5}).seed
        3
    """
    return replace(part, **{f.name: chosen[f.name] for f in fields(part) if f.name in chosen})
