"""The controller: plans jobs, hands out units, folds what workers report, notices the dead."""
