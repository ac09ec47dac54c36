"""Each prints a table and the ratio it is about; ``--json FILE`` writes its figures."""
