"""Values that a user types, read and checked against the type that a parameter asks for.

The command line, the notebook runner and the notebooks themselves all take the same parameters; this module
is the one place that says what ``batch_sizes=[32, 128]`` means and refuses ``seeds=[7.5]``.
"""

import re
from collections.abc import Callable, Iterable, Mapping

import yaml

from hbanalysis.errors import InputError, unknown_name

_SIMPLE: dict[str, Callable[[object], bool]] = {
    "str": lambda value: isinstance(value, str),
    "bool": lambda value: isinstance(value, bool),
    # bool is an int in Python; a seed of True is a mistake nevertheless.
    "int": lambda value: isinstance(value, int) and not isinstance(value, bool),
    "float": lambda value: isinstance(value, int | float) and not isinstance(value, bool),
    "dict": lambda value: isinstance(value, Mapping),
    "list": lambda value: isinstance(value, list | tuple),
}


def kind_of(annotation: object) -> str:
    """Return a type as text: ``"int"`` of ``int``, ``"list[int]"`` of ``list[int]`` or of that text.

    Example:
        >>> kind_of(int), kind_of(list[int]), kind_of(" list[ float ] ")
        ('int', 'list[int]', 'list[float]')
    """
    if isinstance(annotation, type) and not getattr(annotation, "__args__", None):
        return annotation.__name__
    return str(annotation).replace(" ", "").strip("\"'")


def fits(value: object, kind: str) -> bool:
    """Tell whether a value has a type; ``None`` fits every type, since it stands for the preset.

    A whole number fits ``float``. A type that this module does not know is not judged.

    Example:
        >>> fits([32, 128], "list[int]"), fits([7.5], "list[int]"), fits(None, "list[int]")
        (True, False, True)
    """
    if value is None:
        return True
    inner = re.fullmatch(r"(?:list|tuple)\[(\w+)(?:,\.\.\.)?\]", kind)
    if inner:
        one = _SIMPLE.get(inner.group(1), lambda _: True)
        return isinstance(value, list | tuple) and all(one(item) for item in value)
    return _SIMPLE.get(kind, lambda _: True)(value)


def check(values: Mapping[str, object], kinds: Mapping[str, str], where: str) -> None:
    """Check names and types of given parameters.

    Args:
        values: What was given, by name.
        kinds: The type of every parameter that exists, as text.
        where: What takes the parameters, for the message.

    Raises:
        InputError: A name is unknown (the nearest names are listed) or a value has another type.
    """
    for name, value in values.items():
        if name not in kinds:
            raise unknown_name(f"parameter of {where}", name, kinds)
        if not fits(value, kinds[name]):
            raise InputError(
                f"Parameter {name!r} of {where} takes {_article(kinds[name])}; given {value!r} "
                f"({type(value).__name__}). Try {name}={_sample(kinds[name])}, or leave it out."
            )


def parse(text: str, kind: str = "") -> object:
    """Read one value as YAML (JSON included); text stays text where ``kind`` is ``"str"``.

    Numbers such as ``1e-3``, which YAML 1.1 takes for text, are numbers here.

    Raises:
        InputError: The text is not YAML.

    Example:
        >>> parse("[32, 128]"), parse("1e-3"), parse("7", "str"), parse("none")
        ([32, 128], 0.001, '7', None)
    """
    if kind == "str":
        return None if text.lower() in ("none", "null", "") else text
    try:
        return _numbers(yaml.safe_load(text))
    except yaml.YAMLError as error:
        raise InputError(f"{text!r} is not a value in YAML or JSON, such as 7, 0.01, true or [32, 128].") from error


def parse_assignments(assignments: Iterable[str], kinds: Mapping[str, str], where: str) -> dict[str, object]:
    """Read ``name=value`` texts and check their names and types.

    Raises:
        InputError: A text without ``=``, an unknown name, or a value of another type.

    Example:
        >>> parse_assignments(["seeds=[7]"], {"seeds": "list[int]"}, "the study")
        {'seeds': [7]}
    """
    values: dict[str, object] = {}
    for assignment in assignments:
        name, separator, text = assignment.partition("=")
        name = name.strip()
        if not separator or not name:
            raise InputError(f"{assignment!r} is not of the form name=value, such as 'seeds=[0, 1]'.")
        if name not in kinds:
            raise unknown_name(f"parameter of {where}", name, kinds)
        values[name] = parse(text.strip(), kinds[name])
    check(values, kinds, where)
    return values


def _numbers(value: object) -> object:
    if isinstance(value, list):
        return [_numbers(item) for item in value]
    if isinstance(value, dict):
        return {key: _numbers(item) for key, item in value.items()}
    if isinstance(value, str):
        if value.lower() == "none":
            return None
        if re.fullmatch(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+", value):
            return float(value)
    return value


def _article(kind: str) -> str:
    return f"an {kind}" if kind[:1] in "aeiou" else f"a {kind}"


def _sample(kind: str) -> str:
    samples = {"int": "7", "float": "0.01", "bool": "true", "str": "digits", "list[float]": "[0.01, 0.1]"}
    return samples.get(kind, "[1, 2]" if kind.startswith("list") else "...")
