"""The table of data sets on the page is the one in the code."""

import re
from pathlib import Path

from hbanalysis import data

PAGE = Path(__file__).parents[1] / "book" / "data.md"


def test_sizes_shapes_and_classes() -> None:
    lines = re.findall(r"^\| `(\w+)` \| ([^|]+) \| ([\d,]+) \| ([\d,]+) \| (\d+) \|", PAGE.read_text("utf-8"), re.M)
    assert [line[0] for line in lines] == data.names()
    for name, shape, train, test, classes in lines:
        known = data.describe(name)
        assert tuple(map(int, shape.split(" x "))) == known.shape
        assert int(train.replace(",", "")) == known.splits["train"]
        assert int(test.replace(",", "")) == known.splits["test"]
        assert int(classes) == known.classes
