"""The LightningModule and what stands around it in a run.

module.py       training, validation and test steps, and the optimiser
callbacks.py    apply the plan
ending.py       train to the end, or stop early; say what ended a run
caching.py      give the head features instead of photos in the frozen phase
checkpoints.py  save the best and the last epoch, and stop when asked to
restore.py      read a checkpoint, and say what is wrong with it
averaging.py    an exponential moving average of the weights
record.py       write down the metrics, the rates and the first batch
epoch_table.py  print a row after each epoch
metrics.py      measure each split
calibration.py  fit the temperature that makes confidences honest
measures.py     names of the metrics, and which way each is better
device.py       settings that depend on the device
"""
