"""Names: the paper's attacks, the models of the adversarial studies, arms of the adaptive batch size, modes."""

ORIGINAL, CONTROL = "ORI", "CLEAN+"  # the model before, and the control that trains on with clean images
ATTACKS = ("FGSM", "FGSM-10", "L2GRAD", "FHSM", "L2HESS")
MODELS = (ORIGINAL, CONTROL, *ATTACKS)
SMALL, LARGE, ABS, ABSA = "small", "large", "ABS", "ABSA"  # fixed batches, growing ones, those with attacked images
ARMS = (SMALL, LARGE, ABS, ABSA)
# Running statistics, those of a batch as in the training, those of a batch of one size for all.
EVAL, OWN, COMMON = "eval", "train_own", "train_common"
MODES = (EVAL, OWN, COMMON)
