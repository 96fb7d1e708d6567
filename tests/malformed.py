"""Damage done to rows, configurations and parameter sets at random, from a seed, without end."""

import copy
import json
import random
from collections.abc import Iterator
from functools import cache
from typing import Any

from hbanalysis import studies
from tests import parameter_space as space
from tests.flow_rows import STUDY, made_up_row

WRONG: tuple[Any, ...] = (
    *(None, True, "", "x", "1", [], {}, [[]], [None], {"a": 1}, -1, 0, 1.5, -0.5, 10**30, 1e308, "../x", "\ud800"),
    *(float("nan"), float("inf"), [float("nan")], ["x"], [0, "x"], {"training": {}}),
)
PIECES = [b"", b"\0", b"\xff\xfe", b'"', b"{", b"]", b",", b"NaN", b"1e999", b"-", b"9" * 5000, b"[" * 2000, b"\\ud800"]


@cache
def configurations() -> list[tuple[str, str]]:
    """A study's name with the JSON text of a configuration: the first and last cell of each scale of each study."""
    found = []
    for name in studies.names():
        study = studies.get(name)
        for scale in ("digits", "mnist"):
            cells = study.cells(scale)
            found += [(name, json.dumps(study.config(cell))) for cell in (cells[0], cells[-1])]
    return found


def places(data: Any) -> list[tuple[Any, Any]]:
    """Every container in JSON data with each of its keys or places."""
    inside = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    found = []
    for key, value in inside:
        found += [(data, key), *places(value)]
    return found


def spoiled(data: Any, rng: random.Random) -> tuple[Any, str]:
    """A copy of JSON data with one thing changed, and the field it belongs to."""
    made = copy.deepcopy(data)
    holder, key = rng.choice(places(made))
    field = str(key)
    match rng.randrange(5):
        case 0:
            del holder[key]
        case 1 if isinstance(holder, dict):
            field = rng.choice(["extra", "__class__", "", "self", f"{key} "])
            holder[field] = copy.deepcopy(holder[key])
        case 2:
            holder[key] = [copy.deepcopy(holder[key])]
        case _:
            holder[key] = copy.deepcopy(rng.choice(WRONG))
    return made, field


def bad_configurations(seed: int, count: int) -> Iterator[tuple[str, Any]]:
    """Yield a study's name and what is no configuration of it, mostly."""
    rng = random.Random(seed)
    for _ in range(count):
        name, text = rng.choice(configurations())
        config = json.loads(text)
        yield name, spoiled(config, rng)[0]


def bad_parameters(seed: int, count: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield a study's name and parameters of which at least one is invalid, or none of the study's."""
    rng = random.Random(seed)
    every = space.parameters()
    for _ in range(count):
        name, parameter = rng.choice(every)
        own = [one for study, one in every if study == name]
        given = {one: rng.choice(space.invalid(name, one)) for one in rng.sample(own, rng.randrange(3))}
        given[parameter] = rng.choice(space.invalid(name, parameter))
        if rng.random() < 0.05:
            given = {rng.choice([f"{parameter}_", parameter.upper(), "Scale", "__class__", ""]): 1}
        yield name, given


def good_row() -> str:
    """The text of a sound row."""
    return made_up_row(studies.get(STUDY).cells("digits")[0]).to_json()


def bad_rows(seed: int, count: int) -> Iterator[bytes]:
    """Yield what stands in a row's file after an accident: another value, a piece lost, added, doubled or flipped."""
    rng = random.Random(seed)
    text = good_row()
    whole = text.encode()
    for _ in range(count):
        start, end = sorted(rng.sample(range(len(whole)), 2))
        match rng.randrange(6):
            case 0:
                yield whole[:start]
            case 1:
                yield whole[:start] + whole[end:]
            case 2:
                yield whole[:start] + rng.choice(PIECES) + whole[start:]
            case 3:
                yield whole[:start] + bytes([whole[start] ^ (1 << rng.randrange(8))]) + whole[start + 1 :]
            case 4:
                yield whole[:end] + whole[start:]
            case _:
                yield json.dumps(spoiled(json.loads(text), rng)[0]).encode("utf-8", "surrogatepass")


def settings_of(data: Any, *above: Any) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """Yield the path and value of everything in JSON data that holds nothing itself."""
    inside = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    if not isinstance(data, dict | list):
        yield above, data
    for key, value in inside:
        yield from settings_of(value, *above, key)


def value_at(data: Any, path: tuple[Any, ...]) -> Any:
    """The value at such a path."""
    for key in path:
        data = data[key]
    return data
