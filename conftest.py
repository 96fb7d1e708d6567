import os

from jaxtyping import install_import_hook

# Read once, when torch and NumPy load their thread pools: two workers on two cores, one thread each. Subprocesses and
# notebook kernels inherit it.
for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(variable, "1")

# Shapes and types that the annotations state are checked at run time, in tests only; an int passes for a float,
# as it does for mypy.
install_import_hook("hbanalysis", "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))")

pytest_plugins = ["tests.tiers"]
