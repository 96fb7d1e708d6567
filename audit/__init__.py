"""Measurements of the tests themselves, of coverage and of memory; made by hand, hours long: ``make audit``."""
