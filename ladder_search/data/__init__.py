"""Data sets: found, fetched, verified and cached (datasets); cut into label splits and batch streams."""
