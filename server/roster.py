"""The labs of a run: who is in, by node, and who is out and why."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from math import ceil

import numpy as np

from common.errors import QuorumError


@dataclass(kw_only=True)
class Roster:
    """Labs by node, as they introduced themselves.

    Attributes
    ----------
    enrolled : mapping of int to str
        Names by which the coordinator knows nodes beforehand; empty in a simulation.
    names : dict of int to str
        Of the labs that are in.
    buckets : dict of int to int
        Their rounded numbers of specimens, from the handshake.
    num_examples : dict of int to int
        Their numbers of training specimens, from the statistics.
    target_counts : dict of int to ndarray of shape (n_targets,)
        How many of those have each target measured.
    standardised : list of str
        Labs whose sums the standardiser was made of.
    excluded : dict of str to str
        Labs that were refused or quarantined, with the reason.
    num_accepted : int
        Labs that passed the handshake: what the quorum is a share of.
    """

    enrolled: Mapping[int, str] = field(default_factory=dict)
    names: dict[int, str] = field(default_factory=dict)
    buckets: dict[int, int] = field(default_factory=dict)
    num_examples: dict[int, int] = field(default_factory=dict)
    target_counts: dict[int, np.ndarray] = field(default_factory=dict)
    standardised: list[str] = field(default_factory=list)
    excluded: dict[str, str] = field(default_factory=dict)
    num_accepted: int = 0

    def name(self, node: int) -> str:
        """Return the name of the lab on a node; with the node if two claim the name."""
        name = self.names.get(node, self.enrolled.get(node))
        if name is None:
            return f"node {node}"
        claimed = list(self.names.values()).count(name) > 1
        return f"{name} on node {node}" if claimed else name

    def by_name(self, nodes: Iterable[int]) -> list[int]:
        """Order nodes by their labs' names: sums of floats depend on the order."""
        return sorted(nodes, key=self.name)

    def named(self, reasons: Mapping[int, str]) -> dict[str, str]:
        """Return reasons by name instead of by node."""
        return {self.name(node): reason for node, reason in reasons.items()}

    def exclude(self, reasons: Mapping[int, str]) -> None:
        """Put labs out of the run, by name."""
        self.excluded |= self.named(reasons)
        for node in reasons:
            self.names.pop(node, None)

    def needed(self, share: float) -> int:
        """Return how many labs a quorum of `share` is: at least one."""
        return max(1, ceil(share * self.num_accepted - 1e-9))

    def require_quorum(
        self, present: int, share: float, phase: str, missing: Mapping[str, str]
    ) -> None:
        """Raise QuorumError, naming who is missing, if fewer than `share` of the labs are present.

        Examples
        --------
        >>> Roster(num_accepted=3).require_quorum(1, 0.67, "round 4", {"celle": "no reply in time"})
        Traceback (most recent call last):
        ...
        common.errors.QuorumError: round 4: 1 of 3 labs took part and the quorum is 3; missing: \
celle (no reply in time)
        """
        needed = self.needed(share)
        if present < needed:
            listed = "; ".join(f"{name} ({why})" for name, why in missing.items())
            raise QuorumError(
                f"{phase}: {present} of {self.num_accepted} labs took part and the quorum is "
                f"{needed}; missing: {listed or 'all'}"
            )
