"""Photo sources. Imports nothing, so that `thaw.data.decode` needs no Lightning."""
