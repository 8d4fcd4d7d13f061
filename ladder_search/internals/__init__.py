"""Private names of other packages, one file per package, to be checked with each new release."""
