"""What a page of a study is about: all of its rows, or those on some data sets alone."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from hbanalysis.data import DATASETS
from hbanalysis.errors import InputError, unknown_name
from hbanalysis.store import Row, published
from hbanalysis.tables import frames


@dataclass(frozen=True)
class Subject:
    """A study, and which of its rows a page shows.

    Attributes:
        study: Name of the study.
        only: Data sets whose rows are shown; empty shows those of every one.
        without: Data sets whose rows stand on another page.

    Raises:
        InputError: A data set that is not known, or both lists are given.

    Example:
        >>> Subject("spectrum_vs_batch", without=("cifar100",)).takes("mnist")
        True
    """

    study: str
    only: tuple[str, ...] = ()
    without: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in (*self.only, *self.without):
            if name not in DATASETS:
                raise unknown_name("data set", name, DATASETS)
        if self.only and self.without:
            raise InputError(f"Give only= or without=, not both; given {self.only} and {self.without}.")

    @classmethod
    def of(cls, study: str, only: Collection[str] = (), without: Collection[str] = ()) -> "Subject":
        """Return the subject that the arguments of `pages.start` name."""
        return cls(study, tuple(only), tuple(without))

    def takes(self, dataset: str) -> bool:
        """Tell whether rows on a data set are shown."""
        return dataset not in self.without and (not self.only or dataset in self.only)

    def chosen(self, rows: Sequence[Row]) -> list[Row]:
        """Return those of the study's rows that are shown, in the order of a page: largest scale first."""
        kept = [row for row in rows if self.takes(row.config["training"]["dataset"])]
        return [row for group in frames.families(kept).values() for row in group]

    def published(self) -> list[Row]:
        """Return the published rows that are shown, in the order of a page."""
        return self.chosen(published().rows(self.study))
