"""The LightningModule and what stands around it in a run."""
