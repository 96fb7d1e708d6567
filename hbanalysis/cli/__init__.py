"""The command ``hbanalysis``."""

from hbanalysis.cli.commands import app, main

__all__ = ["app", "main"]
