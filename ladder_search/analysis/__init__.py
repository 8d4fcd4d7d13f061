"""Analyses of a bundle's network: its columns, the frames of a video, or music."""
