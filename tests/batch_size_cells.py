"""The cells of the study of batch sizes that other studies take up."""

from hbanalysis import studies


def shared_cells(scale: str) -> list:
    """Cells of a preset, without the seeds that two batch sizes of C1 have there for a contrast of accuracies alone."""
    cells = studies.get("spectrum_vs_batch").cells(scale)
    return [cell for cell in cells if cell.training.network != "C1" or cell.training.seed < 3]
