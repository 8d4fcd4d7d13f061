"""Private names of other packages, one file per package: what to check when a package has a new release."""
