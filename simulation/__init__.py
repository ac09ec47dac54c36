"""Virtual labs, in one process."""
