"""Files of a search: study folders, records of ended trials, and marks in checkpoints."""
