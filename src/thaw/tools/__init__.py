"""Commands around a run: `thaw <command>`, one module each."""
