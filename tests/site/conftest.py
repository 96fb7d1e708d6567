import functools
import importlib
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType

import pytest
from filelock import FileLock

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The published site, built as `make site` builds it but into a folder of this test run, once for all workers."""
    parallel = "PYTEST_XDIST_WORKER" in os.environ
    shared = tmp_path_factory.getbasetemp().parent if parallel else tmp_path_factory.getbasetemp()
    output = shared / "site"
    with FileLock(shared / "site.lock"):
        if not (output / "log").exists():
            output.mkdir()
            recipe = re.search(r"^site:.*\n\t(.+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
            assert recipe, "the Makefile has no recipe for `site`"
            options = recipe[1].split()[1:]
            options[options.index("--path-output") + 1] = str(output)
            environment = {**os.environ, "HBANALYSIS_BANNER": ""}
            command = [sys.executable, "-c", "from jupyter_book.cli.main import main; main()", *options]
            run = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
            (output / "log").write_text(f"exit code {run.returncode}\n{run.stdout}{run.stderr}")
    log = (output / "log").read_text()
    assert log.startswith("exit code 0\n"), log[-4000:]
    return output / "_build" / "html"


@pytest.fixture(scope="session")
def extension() -> Iterator[Callable[[str], ModuleType]]:
    """Imports a Sphinx extension of the book by its name, as Sphinx does."""
    folder = ROOT / "book" / "_ext"
    sys.path.insert(0, str(folder))
    yield importlib.import_module
    sys.path.remove(str(folder))
    for path in folder.glob("*.py"):
        sys.modules.pop(path.stem, None)


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *arguments: object) -> None:
        pass


@pytest.fixture(scope="session")
def address(site: Path) -> Iterator[str]:
    """The site served on this machine, as http://127.0.0.1:PORT."""
    with ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(site))) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture(scope="session")
def browser(chromium: str) -> Iterator[object]:
    from playwright.sync_api import sync_playwright

    switches = ["no-sandbox", "disable-gpu", "disable-quic", "no-first-run", "disable-background-networking"]
    switches += ["disable-component-update", "disable-sync"]
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=chromium, args=[f"--{switch}" for switch in switches])
        yield opened
        opened.close()
