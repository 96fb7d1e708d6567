"""The experiments of the paper, each a frozen configuration in and a row out."""

from hbanalysis.errors import unknown_name
from hbanalysis.studies.absa import Absa
from hbanalysis.studies.adversarial_training import AdversarialTraining
from hbanalysis.studies.attack_readings import AttackReadings
from hbanalysis.studies.base import Study
from hbanalysis.studies.batch_statistics import BatchStatistics
from hbanalysis.studies.input_curvature import InputCurvature
from hbanalysis.studies.learning_rate_factorial import LearningRateFactorial
from hbanalysis.studies.loss_landscape import LossLandscape
from hbanalysis.studies.parameters import Parameter
from hbanalysis.studies.robust_spectrum import RobustSpectrum
from hbanalysis.studies.robustness_vs_batch import RobustnessVsBatch
from hbanalysis.studies.saddle_free import SaddleFree
from hbanalysis.studies.smooth_activations import SmoothActivations
from hbanalysis.studies.spectrum_vs_batch import SpectrumVsBatch
from hbanalysis.studies.training_dynamics import TrainingDynamics

__all__ = ["Parameter", "Study", "get", "names"]

_ALL: tuple[Study, ...] = (
    SpectrumVsBatch(),
    LearningRateFactorial(),
    SmoothActivations(),
    InputCurvature(),
    SaddleFree(),
    AttackReadings(),
    RobustnessVsBatch(),
    AdversarialTraining(),
    RobustSpectrum(),
    LossLandscape(),
    TrainingDynamics(),
    Absa(),
    BatchStatistics(),
)
_STUDIES = {study.name: study for study in _ALL}


def names() -> list[str]:
    """Return the names of the studies."""
    return list(_STUDIES)


def get(name: str) -> Study:
    """Return a study by name.

    Raises:
        InputError: Unknown name; the message lists the nearest.
    """
    if name not in _STUDIES:
        raise unknown_name("study", name, _STUDIES)
    return _STUDIES[name]
