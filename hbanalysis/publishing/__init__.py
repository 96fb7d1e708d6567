"""Rows into pages, pages into a site."""
