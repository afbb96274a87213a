"""The LightningModule and what stands around it in a run.

module.py           steps, logging, the optimiser
callbacks.py        apply the plan, stop early
caching.py          features instead of photos in the frozen phase
checkpoints.py      stop gracefully, keep the last epoch
averaging.py        EMA and SWA of the weights
progress.py         record and show what a run does
metrics.py          what is measured
calibration.py      the temperature that makes confidences honest
measures.py         names of the metrics, and which way each is better
device.py           what suits the device
"""
