"""What a finding is: seed-level values in a few lines, with the words that their signs allow."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from hbanalysis import paper
from hbanalysis.tables.frames import Family
from hbanalysis.trends import Interval, t_interval


@dataclass(frozen=True)
class Line:
    """One quantity of a finding.

    Attributes:
        where: Network, data set and scale.
        label: What was measured, in a few words.
        values: One a seed.
    """

    where: str
    label: str
    values: tuple[float, ...]


@dataclass(frozen=True)
class Finding:
    """Something that the rows say and the paper does not, or the other way round.

    Attributes:
        name: Part of the address of its figure and data.
        title: The finding in a sentence.
        said: The numbers, with their intervals, as Markdown.
        axis: What the values are.
        lines: The values; those of one `where` stand together.
        page: The notebook that shows more.
        commands: What computes its rows again, the largest scale first.
        reference: The value that would mean no effect; None where there is none.
        factor: Whether values are factors, whose means are geometric and whose axis is logarithmic.
        form: How a value is written.
        ends: Values that an interval cannot pass.
        unit: What a value is one of.
    """

    name: str
    title: str
    said: str
    axis: str
    lines: tuple[Line, ...]
    page: str
    commands: tuple[str, ...]
    reference: float | None = 0.0
    factor: bool = False
    form: str = "+.1f"
    ends: tuple[float, float] = (-math.inf, math.inf)
    unit: str = "seed"

    def interval(self, line: Line) -> Interval:
        """Return mean and interval of a line; of factors, geometric and of the logarithms."""
        return interval_of(line.values, factor=self.factor, ends=self.ends)

    def text(self, line: Line) -> str:
        """Return mean and interval of a line as text."""
        return written(self.interval(line), self.form, self.unit)

    @property
    def described(self) -> str:
        """The figure in words, for those who do not see it."""
        said = "; ".join(f"{line.where}, {plain(line.label)}: {self.text(line)}" for line in self.lines)
        return f"{plain(self.axis)}. {said}."


def interval_of(
    values: Sequence[float], *, factor: bool = False, ends: tuple[float, float] = (-math.inf, math.inf)
) -> Interval:
    """Return mean and t-interval over seeds; of factors, those of the logarithms, turned back.

    Example:
        >>> round(interval_of([2.0, 8.0], factor=True).mean, 6)
        4.0
    """
    found = t_interval([math.log(value) for value in values] if factor else list(values), _confidence())
    turn = math.exp if factor else float
    if found.low is None or found.high is None:
        return Interval(turn(found.mean), None, None, found.n)
    low, high = max(turn(found.low), ends[0]), min(turn(found.high), ends[1])
    return Interval(turn(found.mean), low, high, found.n)


def written(interval: Interval, form: str, unit: str = "seed") -> str:
    """Return an interval as text.

    Example:
        >>> written(Interval(2.0, 1.5, 2.5, 3), ".1f"), written(Interval(2.0, None, None, 1), "+.1f")
        ('2.0 (1.5 to 2.5)', '+2.0 (one seed)')
        >>> written(Interval(-0.01, -1.0, 1.0, 3), "+.1f")
        '0.0 (-1.0 to +1.0)'
    """
    if interval.low is None or interval.high is None:
        return f"{_number(interval.mean, form)} (one {unit})"
    mean, low, high = (_number(value, form) for value in (interval.mean, interval.low, interval.high))
    return f"{mean} ({low} to {high})"


def side(lines: Iterable[Line], of: float) -> int:
    """Return 1 if every value of all lines lies above a number, -1 if every one lies below, else 0.

    Example:
        >>> side([Line("", "", (1.0, 2.0))], 0.0), side([Line("", "", (1.0, -2.0))], 0.0)
        (1, 0)
    """
    values = [value for line in lines for value in line.values]
    if values and all(value > of for value in values):
        return 1
    return -1 if values and all(value < of for value in values) else 0


def where(one: Family, title: str = "") -> str:
    """Return what was trained and its scale, in one line."""
    scale = "the paper's scale" if one.scale == "paper" else f"scale {one.scale}"
    return f"{title or one.title}, {scale}"


def plain(text: str) -> str:
    r"""Return a text without the marks of mathematics.

    Example:
        >>> plain(r"$\lambda_1$ at the end")
        'lambda1 at the end'
    """
    return text.replace("$", "").replace(r"\lambda_1", "lambda1")


def _number(value: float, form: str) -> str:
    """A number without the sign of a zero that rounding left, and without a power of ten."""
    text = f"{value:{form}}"
    if "e+" in text:
        return f"{float(text):,.0f}"
    return text if float(text) else text.lstrip("+-")


def _confidence() -> float:
    return float(paper.criteria().rules["confidence"])
