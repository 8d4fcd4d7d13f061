"""What is claimed and what was measured: published results, orderings of methods, learning curves."""
