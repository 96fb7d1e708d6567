"""The table of data sets on the page is the one in the code."""

import re
from pathlib import Path

from hbanalysis import data, networks

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


def test_the_networks_are_those_in_the_code() -> None:
    lines = re.findall(r"^\| `(\w+)` \| ([\d x]+) \| (\d+) \| ([\d,]+) \|", PAGE.read_text("utf-8"), re.M)
    assert [line[0] for line in lines] == ["M1", "C1", "C2", "C3", "CR"]
    for name, shape, classes, parameters in lines:
        model = networks.build(name, tuple(map(int, shape.split(" x "))), int(classes))
        assert sum(weights.numel() for weights in model.parameters()) == int(parameters.replace(",", ""))
