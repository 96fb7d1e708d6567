"""Rows as batch sizes crossed with seeds: what is complete, what is left out, and what is asked for and lacking."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from hbanalysis.store import Row

# A rank trend needs three batch sizes to say more than a sign.
FEWEST_SIZES = 3


@dataclass(frozen=True)
class Design:
    """Rows as batch sizes crossed with seeds, complete.

    Attributes:
        batch_sizes: In order.
        seeds: Those that hold every one of the batch sizes.
        cells: Rows by batch size and seed, incomplete ones too.
        lacking: Batch sizes that must be in the design before it decides anything, and are not.
        omitted: Batch sizes with rows that do not enter, since fewer seeds were measured there.
    """

    batch_sizes: tuple[int, ...]
    seeds: tuple[int, ...]
    cells: Mapping[tuple[int, int], Row]
    lacking: tuple[int, ...] = ()
    omitted: tuple[int, ...] = ()

    @classmethod
    def of(cls, rows: Sequence[Row], seeds_needed: int, planned: Sequence[int] = ()) -> "Design":
        """The design that rows of one family fill.

        Batch sizes are those measured with as many seeds as a criterion demands, if these are at least three;
        else the number of seeds is lowered until they are, or until no batch size is left out. The smallest and the
        largest of the ``planned`` batch sizes are lacking where they are not among them: a trend that stops short of
        them is not the one that was asked for.
        """
        cells = _by_batch_and_seed(rows)
        counts = Counter(size for size, _ in cells)
        sizes: list[int] = []
        for enough in range(seeds_needed, 0, -1):
            found = sorted(size for size, count in counts.items() if count >= enough)
            if len(found) > len(sizes):
                sizes = found
            if len(sizes) >= FEWEST_SIZES:
                break
        omitted = sorted(set(counts) - set(sizes))
        return cls._complete(sizes, cells, [*planned[:1], *planned[-1:]], omitted)

    @classmethod
    def pair(cls, rows: Sequence[Row], smaller: int, asked: Iterable[int] = ()) -> "Design":
        """The design of one batch size and the largest one above it; ``asked`` are those it should be made of."""
        cells = _by_batch_and_seed(rows)
        largest = max((size for size, _ in cells), default=smaller)
        return cls._complete(sorted({smaller, largest}), cells, asked)

    @classmethod
    def all_of(cls, rows: Sequence[Row]) -> "Design":
        """Every batch size and seed that has a row, complete or not."""
        cells = _by_batch_and_seed(rows)
        return cls(tuple(sorted({size for size, _ in cells})), tuple(sorted({seed for _, seed in cells})), cells)

    @classmethod
    def _complete(
        cls,
        sizes: Sequence[int],
        cells: Mapping[tuple[int, int], Row],
        asked: Iterable[int],
        omitted: Sequence[int] = (),
    ) -> "Design":
        seeds = sorted({seed for _, seed in cells})
        full = tuple(seed for seed in seeds if all((size, seed) in cells for size in sizes))
        return cls(tuple(sizes), full, cells, tuple(sorted(set(asked) - set(sizes))), tuple(omitted))

    @property
    def rows(self) -> list[Row]:
        """The rows of the complete seeds."""
        return [self.cells[size, seed] for size in self.batch_sizes for seed in self.seeds]

    def measured(self, size: int, seed: int) -> dict:
        """What was measured in a cell at its target loss."""
        return self.cells[size, seed].values["at_target"]

    def left_out(self) -> str:
        """Which rows do not enter, in words: batch sizes with too few seeds, and seeds that lack a batch size."""
        here = sum(size in self.batch_sizes for size, _ in self.cells)
        incomplete = here - len(self.batch_sizes) * len(self.seeds)
        said = [f"{incomplete} rows of incomplete seeds left out"] if incomplete > 0 else []
        if self.omitted:
            said.append(f"B = {', '.join(map(str, self.omitted))} left out: fewer seeds")
        return "; ".join(said)


def _by_batch_and_seed(rows: Sequence[Row]) -> dict[tuple[int, int], Row]:
    # Where a training was measured twice, the row with more eigenvalues counts.
    ordered = sorted(rows, key=lambda row: len((row.values.get("at_target") or {}).get("spectrum_train") or []))
    return {(row.config["training"]["batch_size"], row.config["training"]["seed"]): row for row in ordered}
