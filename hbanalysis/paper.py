"""The paper's tables and claims as data, and the criteria that decide the claims.

Three kinds of facts about Yao, Gholami, Lei, Keutzer and Mahoney (NeurIPS 2018) live in `paper_data/`:

- `table1.csv` ... `table6.csv`: the numbers of its tables. Accuracies are in percent; a pair "train (test)"
  of the paper is two columns ending in `_train` and `_test`. A number that looks like a slip stays as
  printed and is named in `note`; where a unit was changed, a column of its own says so (`fgsm_normalised`).
- `claims.toml`: the claims K1 to K15 in our own words, where the paper makes them, the page that tests them.
- `criteria.toml`: what decides each claim, dated, written before the first result existed.

The numbers of the paper's appendix (M1 on MNIST by batch size among them) are not part of these files.
"""

import datetime
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from types import MappingProxyType
from typing import Any

import pandas as pd

from hbanalysis.errors import unknown_name

_DATA: Traversable = files("hbanalysis") / "paper_data"

_TABLES: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "table1": ("C1 and C2 on CIFAR-10 by batch size", "section 2, Table 1"),
        "table2": ("CR on CIFAR-100 by batch size", "section 2, Table 2"),
        "table3": ("M1 on MNIST, adversarially trained; sets crafted on M_ORI", "section 3, Table 3"),
        "table4": ("C3 on CIFAR-10, adversarially trained; sets crafted on M_ORI", "section 3, Table 4"),
        "table5": ("C1 on SVHN by batch size", "rebuttal section, Table 5"),
        "table6": ("C1 with Softplus and ELU on CIFAR-10 by batch size", "rebuttal section, Table 6"),
    }
)


@dataclass(frozen=True)
class Claim:
    """One claim of the paper, in our own words.

    Attributes:
        id: `K1` to `K15`.
        short: what is claimed, in a few words.
        statement: what is claimed.
        where: section, table or figure of the paper.
        tables: names of the tables that hold the paper's numbers on it.
        page: the notebook that tests it, without suffix.
        study: the study whose rows decide it.
        also: studies whose rows decide parts of it.
    """

    id: str
    short: str
    statement: str
    where: str
    tables: tuple[str, ...]
    page: str
    study: str
    also: tuple[str, ...] = ()


@dataclass(frozen=True)
class Criterion:
    """What decides one claim.

    Attributes:
        id: the claim's id.
        claim: the claim in short.
        text: the criterion; this text is what counts.
        thresholds: its numbers, for the program.
    """

    id: str
    claim: str
    text: str
    thresholds: Mapping[str, Any]


@dataclass(frozen=True)
class Criteria:
    """All criteria, with the rules that hold for every one.

    Attributes:
        date: the day on which they were fixed.
        policy: when and how a criterion may be changed (it may not; a second one may stand beside it).
        rules: the rules for all: `text` and its numbers.
        claims: one `Criterion` per claim id.
        factorial: the learning rate by batch size design behind K1, K2 and K4.
        attack_reading: the rule that chooses between the two readings of the attacks.
        pilot: the runs that motivated the factorial; not evidence.
    """

    date: datetime.date
    policy: str
    rules: Mapping[str, Any]
    claims: Mapping[str, Criterion]
    factorial: Mapping[str, Any]
    attack_reading: Mapping[str, Any]
    pilot: Mapping[str, Any]

    def seeds_needed(self, claim_id: str, network: str) -> int:
        """How many seeds of a network a verdict on a claim needs.

        Example:
            >>> criteria().seeds_needed("K1", "M1"), criteria().seeds_needed("K1", "C1")
            (5, 3)
            >>> criteria().seeds_needed("K2", "C1")
            5
        """
        if claim_id not in self.claims:
            raise unknown_name("claim", claim_id, tuple(self.claims))
        general = self.rules["seeds"]
        special = self.claims[claim_id].thresholds.get("seeds", {})
        return int(special.get(network, general.get(network, general["default"])))


def _frozen(value: Any) -> Any:
    """The same nested value with read-only mappings and tuples, so that a cached answer cannot be altered."""
    if isinstance(value, dict):
        return MappingProxyType({name: _frozen(item) for name, item in value.items()})
    if isinstance(value, list):
        return tuple(_frozen(item) for item in value)
    return value


@cache
def _toml(name: str) -> Mapping[str, Any]:
    return _frozen(tomllib.loads((_DATA / name).read_text(encoding="utf-8")))


def tables() -> dict[str, pd.DataFrame]:
    """The paper's six tables by name, in the paper's order.

    Example:
        >>> list(tables())
        ['table1', 'table2', 'table3', 'table4', 'table5', 'table6']
    """
    return {name: table(name) for name in _TABLES}


def table(name: str) -> pd.DataFrame:
    """One table of the paper, with its slips marked in the column `note`.

    Tables 5 and 6 are those of the rebuttal section; the paper's appendix uses these numbers for others.

    Args:
        name: `table1` to `table6`.

    Returns:
        A fresh frame, accuracies in percent; `frame.attrs` carries `caption` and `where`.

    Raises:
        InputError: the name is not one of the six.

    Example:
        >>> frame = table("table1")
        >>> float(frame.query("network == 'C1' and batch_size == 2048")["lambda1_weights_train"].item())
        80.18
        >>> frame.query("fgsm_normalised")["network"].unique().tolist()
        ['C2']
    """
    if name not in _TABLES:
        raise unknown_name("table of the paper", name, tuple(_TABLES))
    with (_DATA / f"{name}.csv").open(encoding="utf-8") as source:
        frame = pd.read_csv(source, dtype={"note": str})
    frame["note"] = frame["note"].fillna("")
    frame.attrs["caption"], frame.attrs["where"] = _TABLES[name]
    return frame


def claims() -> list[Claim]:
    """The claims K1 to K15, in order.

    Example:
        >>> len(claims()), claims()[0].id
        (15, 'K1')
    """
    return [Claim(id=claim_id, **facts) for claim_id, facts in _toml("claims.toml").items()]


def claim(claim_id: str) -> Claim:
    """One claim by its id.

    Raises:
        InputError: no claim has this id.

    Example:
        >>> claim("K2").tables
        ('table1', 'table2')
    """
    known = {one.id: one for one in claims()}
    if claim_id not in known:
        raise unknown_name("claim", claim_id, tuple(known))
    return known[claim_id]


def criteria() -> Criteria:
    """The criteria that decide the claims, as they were fixed before the first result.

    Example:
        >>> criteria().date.isoformat()
        '2026-11-22'
        >>> criteria().claims["K1"].thresholds["ratio_at_least"]
        3.0
    """
    data = _toml("criteria.toml")
    by_claim = {claim_id: Criterion(id=claim_id, **facts) for claim_id, facts in data["claims"].items()}
    return Criteria(
        date=data["date"],
        policy=data["policy"],
        rules=data["rules"],
        claims=MappingProxyType(by_claim),
        factorial=data["factorial"],
        attack_reading=data["attack_reading"],
        pilot=data["pilot"],
    )


def noted() -> pd.DataFrame:
    """The printed lines of the paper's tables in which something looks wrong: one line a table and note.

    Example:
        >>> noted()["table"].unique().tolist()
        ['Table 1', 'Table 2', 'Table 3']
    """
    lines: dict[tuple[str, str], list[str]] = {}
    for name, frame in tables().items():
        for row in frame[frame["note"] != ""].to_dict("records"):
            which = row.get("model") or " ".join(filter(None, (row.get("network"), f"B = {row.get('batch_size')}")))
            for note in row["note"].split("; ") if name == "table1" else [row["note"]]:
                lines.setdefault((f"Table {name[-1]}", note), []).append(which)
    return pd.DataFrame(
        [{"table": table, "lines": ", ".join(which), "what": note} for (table, note), which in lines.items()]
    )
