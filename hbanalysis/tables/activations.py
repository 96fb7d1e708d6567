"""What networks with different activations measure, beside the paper's table of them."""

from collections.abc import Sequence

import pandas as pd

from hbanalysis.store import Row
from hbanalysis.tables import frames


def beside_the_paper(rows: Sequence[Row]) -> pd.DataFrame:
    """Return means over seeds by activation and batch size, below them the paper's lines; accuracies in percent.

    Args:
        rows: Rows of `smooth_activations`, and of `spectrum_vs_batch` for ReLU.

    Returns:
        Columns ``source``, ``scale``, ``trained``, ``activation``, ``batch_size``, ``seeds``, ``not_reached``,
        ``lambda1_train``, ``lambda1_test``, ``accuracy_test (%)`` and ``fgsm_<epsilon>_test (%)``.
    """
    parts = []
    for one, group in frames.families(rows).items():
        activation = dict(one.setting)["activation"]
        attacks = [c for c in frames.measured(group).columns if c.startswith("fgsm_") and c.endswith("_test")]
        ours = frames.over_seeds(group, ["lambda1_train", "lambda1_test", "accuracy_test", *attacks])
        parts.append(ours.assign(source="here", activation=activation))
        theirs = frames.of_the_paper_for(one)
        if not theirs.empty:
            parts.append(theirs.assign(source="paper", scale="paper", activation=activation))
    both = pd.concat(parts, ignore_index=True)
    both["trained"] = both["network"] + ", " + both["dataset"]
    fractions = [c for c in map(str, both) if c.startswith(("accuracy_", "fgsm_")) and c.endswith("_test")]
    for column in fractions:
        both[f"{column} (%)"] = 100 * both.pop(column)
    first = ["source", "scale", "trained", "activation", "batch_size", "seeds", "not_reached"]
    shown = [*first, "lambda1_train", "lambda1_test", *(f"{column} (%)" for column in fractions)]
    return both.reindex(columns=shown).astype({"seeds": "Int64", "not_reached": "Int64"})
