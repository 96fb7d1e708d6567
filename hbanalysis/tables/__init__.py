"""Rows and measurements as tables: one module for each kind of row."""
