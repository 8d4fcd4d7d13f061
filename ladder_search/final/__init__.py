"""Final training: one configuration over fresh seeds, its checkpoints and its result."""
