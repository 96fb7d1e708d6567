"""Names: the paper's attacks, the seven models of the adversarial studies, the arms of the adaptive batch size."""

ORIGINAL, CONTROL = "ORI", "CLEAN+"  # the model before, and the control that trains on with clean images
ATTACKS = ("FGSM", "FGSM-10", "L2GRAD", "FHSM", "L2HESS")
MODELS = (ORIGINAL, CONTROL, *ATTACKS)
SMALL, LARGE, ABS, ABSA = "small", "large", "ABS", "ABSA"  # fixed batches, growing ones, those with attacked images
ARMS = (SMALL, LARGE, ABS, ABSA)
