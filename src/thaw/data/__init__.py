"""Photo sources. Empty on purpose: `thaw.data.decode` must be importable without Lightning."""
