"""Search spaces, one file per family: what Optuna may suggest, and the papers' points to try first."""
