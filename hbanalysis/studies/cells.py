"""Cells as data: frozen dataclasses to JSON and back, and with some of their fields replaced."""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, fields, is_dataclass, replace
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

from hbanalysis.errors import InputError


def as_data(cell: Any) -> dict[str, Any]:
    """Return a dataclass as JSON data: tuples become lists.

    Example:
        >>> from hbanalysis.training import TrainingConfig
        >>> as_data(TrainingConfig("digits", "M1", 16))["batch_size"]
        16
    """
    return json.loads(json.dumps(asdict(cell)))


def from_data(kind: type, config: object, what: str) -> Any:
    """Return the dataclass of JSON data that `as_data` made; fields that are dataclasses are read the same way.

    Args:
        kind: The dataclass.
        config: Its fields by name.
        what: What this should be, for the error.

    Raises:
        InputError: A field is missing, unknown, of another type or out of range.
    """
    if not isinstance(config, Mapping):
        raise InputError(f"This is no {what}: expected fields by name; given {config!r}.")
    hints = get_type_hints(kind)
    values: dict[str, Any] = {}
    for name, value in config.items():
        hint = hints.get(name)
        if isinstance(hint, type) and is_dataclass(hint):
            values[name] = from_data(hint, value, what)
            continue
        values[name] = tuple(value) if isinstance(value, list) else value
        if hint is not None and not _fits(values[name], hint):
            wanted = hint.__name__ if isinstance(hint, type) and get_origin(hint) is None else hint
            raise InputError(f"This is no {what}: {name} must be {wanted}; given {value!r}.")
    try:
        return kind(**values)
    except TypeError as error:
        raise InputError(f"This is no {what}: {error}.") from error


def _fits(value: Any, hint: Any) -> bool:
    """Tell whether JSON data, lists as tuples, has the type of a field; a whole number passes for a float."""
    if isinstance(hint, UnionType):
        return any(_fits(value, one) for one in get_args(hint))
    if get_origin(hint) is tuple:
        return isinstance(value, tuple) and all(_fits(item, get_args(hint)[0]) for item in value)
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return isinstance(value, hint) and (hint is bool or not isinstance(value, bool))


def changed(part: Any, chosen: Mapping[str, Any]) -> Any:
    """Return a dataclass with those of its fields replaced that ``chosen`` names.

    Example:
        >>> from hbanalysis.training import TrainingConfig
        >>> changed(TrainingConfig("digits", "M1", 16), {"seed": 3, "points": 5}).seed
        3
    """
    return replace(part, **{f.name: chosen[f.name] for f in fields(part) if f.name in chosen})
