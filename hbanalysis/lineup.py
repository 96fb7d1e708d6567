"""The names of the paper's attacks and of the seven models of the adversarial studies."""

ORIGINAL, CONTROL = "ORI", "CLEAN+"  # the model before, and the control that trains on with clean images
ATTACKS = ("FGSM", "FGSM-10", "L2GRAD", "FHSM", "L2HESS")
MODELS = (ORIGINAL, CONTROL, *ATTACKS)
