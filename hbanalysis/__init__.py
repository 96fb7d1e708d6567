"""Hessian-based analysis of large-batch training and of robustness to adversaries."""

__version__ = "0.1.0"
