"""What a run leaves to be read: files of figures, pictures, and one page."""
