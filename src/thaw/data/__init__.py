"""Photo sources: one LightningDataModule per source, on the base in base.py.

Empty on purpose: `thaw.data.decode` must be importable without Lightning.
"""
