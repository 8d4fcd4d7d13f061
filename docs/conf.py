"""How ``make docs`` builds the pages of this folder with Sphinx."""

from __future__ import annotations

project = "ladder-search"
copyright = "the authors of ladder-search"
extensions = ["myst_parser"]
exclude_patterns = ["*.py"]
html_theme = "furo"
html_title = "ladder-search"
html_copy_source = False
myst_heading_anchors = 3  # so that a link to a heading is checked
nitpicky = True
