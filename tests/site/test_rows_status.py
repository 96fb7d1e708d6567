import pytest


@pytest.fixture(scope="module")
def rows_status(extension):
    return extension("rows_status")


def origin(seconds: float) -> dict:
    return {
        "device": "cpu",
        "device_name": "a CPU",
        "torch": "2.15.0",
        "date": "2026-01-02T03:04:05Z",
        "seconds": {"total": seconds},
    }


def test_seeds_share_a_line_and_missing_ones_have_their_own(rows_status):
    training = {"dataset": "digits", "network": "M1", "batch_size": 16, "train_samples": None}
    here = [rows_status.Cell("digits", {**training, "seed": seed}, origin(60.2), "reached") for seed in (1, 0)]
    lines = rows_status.table_of([rows_status.Cell("digits", {**training, "seed": 2}), *here])
    assert lines == [
        ("digits", "digits", "M1", "16", "0, 1", "reached", "a CPU", "120", "2.15.0", "2026-01-02"),
        ("digits", "digits", "M1", "16", "2", "missing", "–", "–", "–", "–"),
    ]


def test_larger_scales_come_first_and_batch_sizes_in_order(rows_status):
    def cell(scale, size, samples=None):
        training = {"dataset": "cifar10", "network": "C1", "batch_size": size, "train_samples": samples, "seed": 0}
        return rows_status.Cell(scale, training)

    lines = rows_status.table_of([cell("small", 64, 5000), cell("paper", 128), cell("paper", 64)])
    assert [line[:4] for line in lines] == [
        ("paper", "cifar10", "C1", "64"),
        ("paper", "cifar10", "C1", "128"),
        ("small", "cifar10, first 5,000", "C1", "64"),
    ]


def test_without_rows_every_cell_is_missing(rows_status, tmp_path, monkeypatch):
    from hbanalysis import studies

    monkeypatch.setenv("HBANALYSIS_PUBLISHED", str(tmp_path))
    for name in studies.names():
        cells = rows_status.cells_of(studies.get(name))
        assert cells
        assert all(cell.provenance is None for cell in cells)
