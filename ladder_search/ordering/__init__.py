"""Orderings: claims of a paper's table about its rows, tested over seeds that all rows share."""
