"""What a search keeps on disk: a folder for each study, a file for each ended trial, marks in checkpoints."""
