"""Photo sources: one LightningDataModule per source, on the base in base.py."""
