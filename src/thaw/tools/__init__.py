"""The commands of `thaw`, one module each. They use the rest of the package, never the reverse."""
