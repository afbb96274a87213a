"""Names of what is measured, and which way each number is better. Quick to import: no torch."""

MODES = {"loss": "min", "acc": "max", "acc_top5": "max", "acc_macro": "max", "f1": "max",
         "ece": "min", "ece_uncalibrated": "min"}  # fmt: skip
BINS = 15  # of confidence, for the calibration error; the number that Guo et al. use
