"""Features of a frozen body, stored on disk: key (what they depend on), table (and its filling)."""
