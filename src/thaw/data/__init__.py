"""Photo sources: one LightningDataModule per source, on the base in base.py."""

from thaw.data.base import PhotoDataModule
from thaw.data.dataset import PhotoDataset
from thaw.data.photos import Photos, Splits

__all__ = ["PhotoDataModule", "PhotoDataset", "Photos", "Splits"]
