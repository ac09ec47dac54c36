"""Everything that touches private data: runs at a lab."""
