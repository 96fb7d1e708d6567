import os
import shutil
import sys
from collections.abc import Iterator

import pytest


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    for marker in item.iter_markers("needs_dataset"):
        from hbanalysis import data

        (name,) = marker.args
        if not os.environ.get("HBANALYSIS_DATA") or not data.available(name):
            pytest.skip(f"data set {name} is not under HBANALYSIS_DATA")
    if item.get_closest_marker("needs_cuda"):
        import torch

        if not torch.cuda.is_available():
            pytest.skip("no CUDA device")


@pytest.fixture(scope="session")
def chromium() -> str:
    """Path of the browser. Missing, it skips on a reader's machine and fails where the browser tests must run."""
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None:
        if os.environ.get("CI") == "true" or os.environ.get("HBANALYSIS_REQUIRE_BROWSER") == "1":
            pytest.fail("chromium is not on PATH, and browser tests must run here (apt-get install chromium)")
        pytest.skip("chromium is not on PATH")
    return path


@pytest.fixture(autouse=True)
def _closed_figures() -> Iterator[None]:
    yield
    pyplot = sys.modules.get("matplotlib.pyplot")  # tests that draw nothing do not wait for its import
    if pyplot is not None:
        pyplot.close("all")
