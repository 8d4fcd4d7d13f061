"""Data sets, found, fetched, verified and cached (``datasets``); label splits and batch streams."""
