"""The page on the command line shows every command, as the command itself would."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from bs4 import BeautifulSoup

from hbanalysis.errors import InputError

PAGE = Path(__file__).parents[2] / "book" / "commands.md"


@pytest.fixture(scope="module")
def helps(extension) -> dict[str, str]:
    return extension("commands").helps()


def test_every_command_stands_on_the_page_once(helps):
    shown = re.findall(r"^```\{command-help\} ?(.*)$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    groups = {name for name in helps if any(other.startswith(f"{name} ") for other in helps)}
    assert sorted(shown) == sorted(set(helps) - groups)
    assert {"", "run", "store verify"} <= set(shown)


def test_the_page_says_what_the_terminal_says(site, helps):
    text = BeautifulSoup((site / "book" / "commands.html").read_text(encoding="utf-8"), "html.parser").get_text()
    program = "from hbanalysis.cli import main; main(['run', '--help'])"
    called = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert called.stdout.split()[3:] == helps["run"].split()[3:]
    assert all(helps[name].strip() in text for name in ("", "run", "archive read"))


def test_a_command_that_does_not_exist_is_an_error(extension):
    directive = extension("commands").CommandHelp.__new__(extension("commands").CommandHelp)
    directive.arguments = ["rnu"]
    directive.error = InputError
    with pytest.raises(InputError, match="no command 'rnu'; there are .*run"):
        directive.run()
