"""The committed list of licences is that of the pinned packages."""

from importlib import metadata
from pathlib import Path

import pytest

from hbanalysis.errors import InputError
from hbanalysis.publishing import licences

# What may be used beside a project under the MIT licence without a duty that reaches further than the package itself.
PERMISSIVE = ("MIT", "BSD", "Apache", "ISC", "PSF", "Python Software Foundation", "MPL", "Mozilla", "Public Domain")


@pytest.mark.survives("Dependencies")
def test_every_pinned_package_is_listed_with_its_licence():
    """`licences.csv` names the licence of every package in `constraints.txt`, in that version; all are permissive, or
    reach no further than the package's own files."""
    listed = licences.listed()
    assert {line["package"]: line["version"] for line in listed} == licences.pinned()
    assert len(listed) == len(licences.pinned())
    assert [line for line in listed if not any(name in line["licence"] for name in PERMISSIVE)] == []


def test_installed_packages_state_what_is_listed():
    checked = 0
    for line in licences.listed():
        try:
            installed = metadata.version(line["package"])
        except metadata.PackageNotFoundError:
            continue
        if installed == line["version"]:
            assert licences.licence(line["package"]) == line["licence"]
            checked += 1
    assert checked > 20


def test_what_is_no_pin_or_not_installed_is_named(tmp_path: Path):
    path = tmp_path / "constraints.txt"
    path.write_text("# exact\n\ntorch==2.15.0\nnumpy>=2\n")
    with pytest.raises(InputError, match="given 'numpy>=2'"):
        licences.pinned(path)
    path.write_text("# exact\n\ntorch==2.15.0\n")
    assert licences.pinned(path) == {"torch": "2.15.0"}
    with pytest.raises(InputError, match="no-such-package is not installed"):
        licences.licence("no-such-package")
