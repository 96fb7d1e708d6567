"""The words of a verdict, as the criteria have them, and what stands where rows of a smaller scale have none."""

REPRODUCED, PARTLY, NOT_REPRODUCED = "reproduced", "partly", "not reproduced"
UNDECIDED, NOT_YET_RUN = "undecided", "not yet run"
NO_VERDICT = "none: the paper's scale decides"
