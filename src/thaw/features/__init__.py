"""Features of a frozen body: computed once, stored on disk, used instead of photos."""
