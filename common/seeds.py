"""Seeds: every random stream has a name, and the same name gives the same numbers everywhere."""

from __future__ import annotations

import hashlib
import random


def seed_for(*names: int | str) -> int:
    """Return a seed in [0, 2**63) that belongs to a sequence of names.

    Streams named differently are independent, whatever order they are drawn in, so that a lab
    shuffles alike in a simulation, at its own site, and after a restart.

    Examples
    --------
    >>> seed_for(0, "shuffle", "lab_a", 3) == seed_for(0, "shuffle", "lab_a", 3)
    True
    >>> seed_for(0, "shuffle", "lab_a", 3) == seed_for(0, "shuffle", "lab_a", 4)
    False
    """
    digest = hashlib.sha256("\x1f".join(str(name) for name in names).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def seed_global_streams(seed: int) -> None:
    """Seed the global generators of ``random``, NumPy and torch.

    crossply's own code draws from named generators; Flower samples nodes with ``random``.
    """
    import numpy as np
    import torch

    random.seed(seed)
    np.random.seed(seed % 2**32)
    # that of the CPU alone: torch.manual_seed notes each call for a GPU that is not there
    torch.default_generator.manual_seed(seed)
