"""Scripts that measure speed and memory, one question each; see README.md."""
