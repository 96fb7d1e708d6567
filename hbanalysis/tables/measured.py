"""The committed measurements of `benchmarks`, as tables: methods side by side, and how cost grows."""

import json
from pathlib import Path
from typing import Any

import pandas as pd

from hbanalysis.errors import StoreError
from hbanalysis.folders import PROJECT

FOLDER = PROJECT / "benchmarks" / "results"


def results(name: str, folder: Path = FOLDER) -> dict[str, Any]:
    """Return a committed result, such as ``digits_net``.

    Raises:
        StoreError: It is not there or not readable; names the command that makes it.
    """
    path = folder / f"{name}.json"
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError) as error:
        raise StoreError(
            f"Cannot read {path}: {error}. benchmarks/README.md names the command that makes it."
        ) from error


def where(found: dict[str, Any]) -> str:
    """Return one line: processor, threads, versions, day, and how busy the machine was (one-minute load)."""
    place = found["environment"]
    versions = {"torch": place["torch"], **place.get("versions", {})}
    listed = ", ".join(f"{name} {version}" for name, version in versions.items())
    said = f"{place['device_name']}, {place['threads']} thread; {listed}; {place['date'][:10]}"
    if "load_before" not in place:
        return said
    return f"{said}; load {place['load_before'][0]:.1f} at the start, {place['load_after'][0]:.1f} at the end"


def methods(found: dict[str, Any]) -> pd.DataFrame:
    """Return one line a method: cost in products and gradients, what is right, and what the method itself said.

    ``gradients`` is the time over that of the fastest full-data gradient; ``right`` counts values within 1e-4 of the
    truth, ``missing`` true values that no returned one comes near.
    """
    rows = []
    for method in found["methods"]:
        if method["status"] != "run":
            rows.append({"method": method["name"], "own report": method["status"]})
            continue
        rows.append(
            {
                "method": method["name"],
                "products": f"{method['products']:.3g}",
                "gradients": f"{method['gradients']:.0f}",
                "right": f"{method['right']} of {len(method['values'])}",
                "missing": str(method["missing"]),
                "own report": method["report"],
            }
        )
    return pd.DataFrame(rows).fillna("").set_index("method")


def large(found: dict[str, Any]) -> str:
    """Return what a measurement on a network of the paper says beside its table, line by line."""
    network, power, arpack = found["network"], found["pyhessian"], found["arpack"]
    lines = [
        f"{network['network']}, {network['samples']:,} images of {network['dataset']}, loss {network['loss']:.2g}; "
        f"{network['parameters']:,} parameters",
        where(found),
        f"fewest products of any Krylov method from this start {found['krylov_floor']}, of ARPACK {arpack['products']}",
    ]
    if power["gradients"] is not None:
        lines.append(
            f"PyHessian: {power['passes']:,} passes at tolerance {power['tol']:g}, {power['gradients']:,.0f} gradients"
        )
    return "\n".join(lines)


def screening(found: dict[str, Any]) -> pd.DataFrame:
    """Return one line a training set: what screening and Lanczos take, and where the curvature sits."""
    rows = []
    for row in found["rows"]:
        screened, plain = row["screened"], row["lanczos"]
        rows.append(
            {
                "samples": row["samples"],
                "seed": row["seed"],
                "loss": row["loss"],
                "heaviest_30_percent_hold": row["share_of_heaviest"]["0.3"],
                "screened": screened["products"],
                "lanczos": plain["products"],
                "screened / lanczos": screened["products"] / plain["products"],
                "kept_samples": screened["notes"].get("used", 1.0),
                "method": screened["method"],
            }
        )
    return pd.DataFrame(rows)


def growth(found: dict[str, Any]) -> pd.DataFrame:
    """Return how a product grows with samples and parameters: seconds, per unit over the first line's, in gradients."""
    rows = []
    for what in ("samples", "parameters"):
        first = found[what][0]
        for row in found[what]:
            rows.append(
                {
                    "grows": what,
                    "from": row[what],
                    "seconds a product": row["product"],
                    "seconds per unit, over the first": row["product"] / row[what] / (first["product"] / first[what]),
                    "gradients": row["product"] / row["gradient"],
                }
            )
    return pd.DataFrame(rows).rename(columns={"from": "number"})


def whole(found: dict[str, Any]) -> str:
    """Return what one product over a whole data set took, and what 50 would, in a sentence marked as such."""
    row = found["cifar10"]
    minutes = row["extrapolated"]["seconds"] / 60
    return (
        f"One product of C1 over all {row['samples']:,} images on {row['threads']} threads, graphs made on the way: "
        f"{row['first_product']:.0f} s, {row['peak_beyond_data'] / 2**30:.1f} GiB beyond the data. "
        f"Extrapolated, not run: {row['extrapolated']['products']} products in {minutes:.0f} minutes."
    )


def tracking(found: dict[str, Any]) -> pd.DataFrame:
    """Return Lanczos' products from a random start and from the eigenvectors of an earlier loss, by loss."""
    rows = [{"loss": row["loss"], "random": row["random"], "tracked": row.get("tracked")} for row in found["tracking"]]
    return pd.DataFrame(rows, dtype=object)
