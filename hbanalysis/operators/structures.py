"""Tensors inside tuples, lists and dicts: what models take as inputs and loaders yield."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor


def mapped(change: Callable[[Tensor], Any], structure: Any) -> Any:
    """Return the structure with every tensor changed; NumPy arrays count as tensors, other values stay.

    Example:
        >>> mapped(lambda t: t + 1, {"a": torch.zeros(1), "b": None})
        {'a': tensor([1.]), 'b': None}
    """
    return zipped(lambda tensors: change(tensors[0]), [structure])


def zipped(join: Callable[[list[Tensor]], Any], structures: Sequence[Any]) -> Any:
    """Return one structure from several of the same form, every tensor joined from theirs."""
    first = structures[0]
    if isinstance(first, np.ndarray | Tensor):
        return join([torch.as_tensor(s) for s in structures])
    if isinstance(first, Mapping):
        return {key: zipped(join, [s[key] for s in structures]) for key in first}
    if isinstance(first, list | tuple):
        parts = [zipped(join, list(entries)) for entries in zip(*structures, strict=True)]
        return parts if isinstance(first, list) else tuple(parts)
    return first


def leaves(structure: Any) -> list[Tensor]:
    """Return the tensors of a structure.

    Example:
        >>> len(leaves(({"a": torch.zeros(1)}, [torch.ones(2), "text"])))
        2
    """
    found: list[Tensor] = []
    mapped(found.append, structure)
    return found


def first(structure: Any) -> Tensor:
    """Return the first tensor of a structure that holds one."""
    return structure if isinstance(structure, Tensor) else leaves(structure)[0]


def lists_of_numbers(structure: Any) -> list[Sequence[Any]]:
    """Return the lists and tuples of plain numbers in a structure.

    Example:
        >>> lists_of_numbers({"a": torch.zeros(2), "ages": [31, 47]})
        [[31, 47]]
    """
    if isinstance(structure, Mapping):
        return [found for value in structure.values() for found in lists_of_numbers(value)]
    if not isinstance(structure, list | tuple):
        return []
    if structure and all(isinstance(value, int | float) for value in structure):
        return [structure]
    return [found for value in structure for found in lists_of_numbers(value)]


def signature(structure: Any) -> tuple[Any, ...]:
    """Return what must agree for structures to be joined along the first axis: form, constants, shapes, dtypes.

    Example:
        >>> signature(torch.zeros(5, 3)) == signature(torch.zeros(2, 3))
        True
    """
    if isinstance(structure, np.ndarray | Tensor):
        return "tensor", tuple(structure.shape[1:]), str(structure.dtype)
    if isinstance(structure, Mapping):
        return "dict", *((key, signature(value)) for key, value in structure.items())
    if isinstance(structure, list | tuple):
        return type(structure).__name__, *(signature(value) for value in structure)
    return "constant", repr(structure)
