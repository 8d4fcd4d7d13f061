"""The longer commands of the console script, one file each; ``cli`` has the list."""
