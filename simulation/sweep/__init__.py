"""Sweeps: which settings predict best, found without a look at the specimens that judge them."""
