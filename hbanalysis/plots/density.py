"""The spectral density of a Hessian on a logarithmic axis, with its band and other curves to compare it with."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import ArrayLike

from hbanalysis.errors import require
from hbanalysis.plots.style import PANEL_HEIGHT, PANEL_WIDTH, Look, house_style, level_looks, line_key

BAND = 2.0  # standard errors on either side
_STYLES = ("--", "-.", ":")


def spectral_density(
    eigenvalue: ArrayLike,
    density: ArrayLike,
    standard_error: ArrayLike | None = None,
    *,
    label: str = "Hessian",
    comparisons: Mapping[str, tuple[ArrayLike, ArrayLike]] | None = None,
    marks: Sequence[float] = (),
    floor: float = 1e-7,
    linear_within: float | None = None,
) -> tuple[Figure, pd.DataFrame]:
    """The density of the eigenvalues, its logarithm against the eigenvalue.

    The band is two standard errors wide on either side. It shows the sampling of probe vectors only, neither the
    truncation of the quadrature nor the smoothing, and the legend says so.

    Args:
        eigenvalue: `(points,)` ascending eigenvalues, as `SpectralDensity.density().x`.
        density: `(points,)` the density there, one over the unit of the eigenvalue.
        standard_error: `(points,)` its standard error over probes; none draws no band.
        label: what the curve is called in the legend.
        comparisons: other curves, `(eigenvalue, density)` by name: another checkpoint, or a law such as Marchenko
            and Pastur's.
        marks: single eigenvalues to mark on the axis, such as the leading ones of `eigsh`.
        floor: share of the highest value at which the axis ends. A single eigenvalue of n stands a share of order
            1 / n high.
        linear_within: half-width of a linear part of the eigenvalue axis around 0, logarithmic beyond; none makes
            the whole axis linear.

    Returns:
        The figure, and the plotted data: columns `curve`, `eigenvalue`, `density`, `low`, `high`; `low` and `high` are
        NaN where there is no band.

    Raises:
        InputError: lengths that differ, eigenvalues that do not ascend, values that are not finite or negative, a curve
            that is zero throughout, or a floor outside 0 to 1.

    Example:
        >>> figure, data = spectral_density([0.0, 1.0, 2.0], [0.2, 0.6, 0.2], marks=[1.5])
        >>> figure.axes[0].get_yscale(), len(data)
        ('log', 3)
    """
    require(0 < floor < 1, f"floor is a share of the highest value, between 0 and 1; given {floor}.")
    require(
        linear_within is None or linear_within > 0,
        f"linear_within is a positive eigenvalue, or None for a linear axis; given {linear_within}.",
    )
    curves = [_curve(label, eigenvalue, density, standard_error)]
    curves += [_curve(name, x, y, None) for name, (x, y) in (comparisons or {}).items()]
    data = pd.concat(curves, ignore_index=True)
    house_style()
    figure = plt.figure(figsize=(1.55 * PANEL_WIDTH, PANEL_HEIGHT + 0.55), layout="constrained")
    axes = figure.subplots()
    looks = list(level_looks(range(len(curves))).values())
    keys = [_draw(axes, curves[0], looks[0], "-")]
    for i, (curve, look) in enumerate(zip(curves[1:], looks[1:], strict=True)):
        keys.append(_draw(axes, curve, look, _STYLES[i % len(_STYLES)]))
    top = float(data["density"].max())
    if standard_error is not None:
        band = curves[0]
        # A band that reaches 0 or below goes down to the end of the axis.
        low = band["low"].clip(lower=floor * top)
        axes.fill_between(band["eigenvalue"], low, band["high"], color=looks[0].color, alpha=0.25, linewidth=0)
        keys.append(line_key(f"± {BAND:g} standard errors over probe vectors only", linewidth=7, alpha=0.25))
    if len(marks):
        axes.vlines(list(marks), 0.0, 0.06, transform=axes.get_xaxis_transform(), color="0.15", linewidth=1.4, zorder=5)
        keys.append(line_key("single eigenvalues", color="0.15", linestyle="", marker="|", markersize=10))
    axes.set_yscale("log")
    axes.set_ylim(floor * top, 3 * float(data[["density", "high"]].max().max()))
    if linear_within is not None:
        axes.set_xscale("symlog", linthresh=linear_within)
    axes.set_xlabel("eigenvalue")
    axes.set_ylabel("density")
    figure.legend(handles=keys, loc="outside lower center", ncols=1 if len(keys) > 2 else len(keys))
    return figure, data


def _curve(name: str, eigenvalue: ArrayLike, density: ArrayLike, standard_error: ArrayLike | None) -> pd.DataFrame:
    x, y = np.asarray(eigenvalue, dtype=float), np.asarray(density, dtype=float)
    error = np.full(x.shape, np.nan) if standard_error is None else np.asarray(standard_error, dtype=float)
    require(
        x.ndim == 1 and x.shape == y.shape == error.shape and len(x) > 0,
        f"The curve {name!r} needs vectors of one length; given shapes {x.shape}, {y.shape} and {error.shape}.",
    )
    require(
        bool(np.isfinite(x).all() and (np.diff(x) > 0).all()),
        f"The eigenvalues of {name!r} must be finite and ascending; sort them, densities alike.",
    )
    require(
        bool(np.isfinite(y).all() and (y >= 0).all() and (y > 0).any()),
        f"The density of {name!r} must be finite, nowhere negative and somewhere above 0.",
    )
    low, high = y - BAND * error, y + BAND * error
    return pd.DataFrame({"curve": name, "eigenvalue": x, "density": y, "low": low, "high": high})


def _draw(axes: Axes, curve: pd.DataFrame, look: Look, line: str) -> Line2D:
    (drawn,) = axes.plot(curve["eigenvalue"], curve["density"], line, color=look.color, label=curve["curve"].iloc[0])
    return drawn
