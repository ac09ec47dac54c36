"""What both sides agree on; knows neither side."""
