"""Files and locks that behave alike on every file system; knows nothing of the rest of the library."""
