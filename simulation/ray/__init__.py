"""The same apps on Flower's Ray engine."""
