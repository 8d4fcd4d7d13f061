"""Files and locks with the same behaviour on all file systems, independent of the rest of the library."""
