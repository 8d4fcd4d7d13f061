"""ladder-search: find, track and confirm hyper-parameters of ladder networks."""

__version__ = "0.1.0"
