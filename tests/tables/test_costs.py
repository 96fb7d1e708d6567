import dataclasses

import pytest
from torch import nn

from hbanalysis import networks, studies
from hbanalysis.tables import costs, measured
from tests.flow_rows import STUDY, made_up_row


def row(cell, seconds, **changes):
    one = made_up_row(cell)
    return dataclasses.replace(one, provenance={**one.provenance, "cpu_seconds": seconds, **changes})


def test_rows_are_summed_up_by_study_scale_network_and_data_set():
    cells = studies.get(STUDY).cells("digits")
    rows = [row(cells[0], 60.0), row(cells[1], 600.0), row(cells[2], 120.0), row(cells[3], 9.0, device="cuda:0")]
    (line,) = costs.of_rows(rows).to_dict("records")
    assert (line["study"], line["scale"], line["network"], line["data set"]) == (STUDY, "digits", "M1", "digits")
    assert (line["rows"], line["CPU minutes a row"], line["least"], line["most"]) == (3, 2.0, 1.0, 10.0)
    assert line["computed on"] == "a CPU"
    assert list(costs.of_rows([]).columns) == costs.COLUMNS


def test_the_rate_counts_a_gradient_as_three_forward_passes():
    found = {"network": {"network": "M1", "dataset": "mnist", "samples": 1000}, "unit_seconds": 2.0}
    model, flops, side = networks.build("M1", (1, 28, 28), 10, seed=0), 0, 28
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d):
            side = side + 2 * layer.padding[0] - layer.kernel_size[0] + 1
            flops += 2 * layer.weight.numel() * side**2
        elif isinstance(layer, nn.MaxPool2d):
            side //= 2
        elif isinstance(layer, nn.Linear):
            flops += 2 * layer.weight.numel()
    assert costs.rate(found) == pytest.approx(3 * flops * 1000 / 2.0)


def test_large_models_are_extrapolated_from_the_benchmark():
    result = measured.results("m1_5000")
    table = costs.of_large_models(result).set_index("model")
    assert table.loc["ResNet-50", "parameters, million"] == pytest.approx(25.557032)
    assert table.loc["ResNet-50", "all-reduce a product, MB"] == pytest.approx(8 * 25.557032)
    run = next(entry for entry in result["methods"] if entry["name"] == "hbanalysis lanczos")
    assert (table["products"] == run["products"]).all()
    # Work and hours hang together by the rate; twice as fast a benchmark is half the hours.
    faster = costs.of_large_models({**result, "unit_seconds": result["unit_seconds"] / 2}).set_index("model")
    assert faster["core-hours"].to_numpy() * 2 == pytest.approx(table["core-hours"].to_numpy())
    seconds = table["core-hours"] * 3600
    assert (table["EFLOP"] * 1e18 / seconds).to_numpy() == pytest.approx(costs.rate(result))
