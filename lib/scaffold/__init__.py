"""Writes the files of a new job, and takes those of an old one away. It stands between cli and run."""
