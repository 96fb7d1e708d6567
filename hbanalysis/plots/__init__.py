"""Figures of the book: one function a figure; rows in, a figure and the data drawn out.

No module here imports torch. A figure has one line of panels for each family of rows (network, data set and
scale), and every line is headed by its scale. `spectral_density` alone takes plain arrays, of any operator, and draws
one panel.
"""

from hbanalysis.plots.activations import activations_vs_batch
from hbanalysis.plots.adaptation import adaptive_course, steps_and_outcomes
from hbanalysis.plots.attacks import cg_sweep, examples, lines_between
from hbanalysis.plots.density import spectral_density
from hbanalysis.plots.dynamics import beside_the_curvature, curvature_course, sharpness_course
from hbanalysis.plots.factorial import rate_over_batch
from hbanalysis.plots.history import training_history
from hbanalysis.plots.inputs import (
    along_training,
    input_curvature_vs_batch,
    input_directions,
    input_spectra,
    rank_and_doubt,
    robustness_and_inputs,
)
from hbanalysis.plots.landscape import landscape
from hbanalysis.plots.matrices import accuracy_matrices
from hbanalysis.plots.modes import modes_vs_batch
from hbanalysis.plots.paper_tables import paper_tables
from hbanalysis.plots.planes import contours, scale_free_vs_batch, second_order
from hbanalysis.plots.robust import both_ends, model_spectra
from hbanalysis.plots.robustness import robustness_vs_batch
from hbanalysis.plots.shown import show
from hbanalysis.plots.spectrum import lambda1_vs_batch, spectra
from hbanalysis.plots.strength import attacks_vs_batch, steps_vs_batch
from hbanalysis.plots.style import house_style
from hbanalysis.plots.surfaces import surfaces

__all__ = [
    "accuracy_matrices",
    "activations_vs_batch",
    "adaptive_course",
    "along_training",
    "attacks_vs_batch",
    "beside_the_curvature",
    "both_ends",
    "cg_sweep",
    "contours",
    "curvature_course",
    "examples",
    "house_style",
    "input_curvature_vs_batch",
    "input_directions",
    "input_spectra",
    "lambda1_vs_batch",
    "landscape",
    "lines_between",
    "model_spectra",
    "modes_vs_batch",
    "paper_tables",
    "rank_and_doubt",
    "rate_over_batch",
    "robustness_and_inputs",
    "robustness_vs_batch",
    "scale_free_vs_batch",
    "second_order",
    "sharpness_course",
    "show",
    "spectra",
    "spectral_density",
    "steps_and_outcomes",
    "steps_vs_batch",
    "surfaces",
    "training_history",
]
