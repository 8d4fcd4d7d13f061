"""Reproductions: published results compared with measurements, races of configurations, learning curves."""
