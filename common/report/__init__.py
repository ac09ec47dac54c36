"""The report of a run: typed content in, one self-contained HTML page out."""
