"""The labs of a run: who is in, by node, and who is out and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from math import ceil
from typing import TypeVar

import numpy as np

from common.errors import REVOKED, QuorumError

T = TypeVar("T")


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
    named_in_card : list of str
        Labs that let the released model name them, as they said in the handshake.
    excluded : dict of str to str
        Labs that were refused or quarantined, with the reason.
    accepted : list of int
        Nodes that passed the handshake, or are to, and have not been put out by the coordinator:
        what the quorum is a share of. A lab that was quarantined still counts; to revoke it takes
        it out.
    """

    enrolled: Mapping[int, str] = field(default_factory=dict)
    names: dict[int, str] = field(default_factory=dict)
    buckets: dict[int, int] = field(default_factory=dict)
    num_examples: dict[int, int] = field(default_factory=dict)
    target_counts: dict[int, np.ndarray] = field(default_factory=dict)
    standardised: list[str] = field(default_factory=list)
    named_in_card: list[str] = field(default_factory=list)
    excluded: dict[str, str] = field(default_factory=dict)
    accepted: list[int] = field(default_factory=list)

    def expect(self, nodes: Iterable[int], revoked: Iterable[int]) -> None:
        """Begin a handshake, again maybe: these nodes may take part, and none has spoken yet.

        Examples
        --------
        >>> roster = Roster(enrolled={2: "aachen", 3: "celle"}, excluded={"celle": "revoked"})
        >>> roster.expect([2, 3, 4], [2])
        >>> roster.names, roster.excluded
        ({3: 'celle', 4: 'node 4'}, {})
        """
        self.accepted = sorted(set(nodes) - set(revoked))
        self.names = {node: self.enrolled.get(node, f"node {node}") for node in self.accepted}
        self.buckets.clear()
        self.named_in_card.clear()
        for name in self.names.values():
            self.excluded.pop(name, None)

    def name(self, node: int) -> str:
        """Return the name of the lab on a node; with the node if two claim the name."""
        return self._name(node, Counter(self.names.values()))

    def by_name(self, nodes: Iterable[int]) -> list[int]:
        """Order nodes by their labs' names: sums of floats depend on the order."""
        claims = Counter(self.names.values())
        return sorted(nodes, key=lambda node: self._name(node, claims))

    def in_order(self, nodes: Iterable[int]) -> tuple[str, ...]:
        """Return the names of labs on some nodes, in the order of the nodes."""
        claims = Counter(self.names.values())
        return tuple(self._name(node, claims) for node in nodes)

    def _name(self, node: int, claims: Mapping[str, int]) -> str:
        name = self.names.get(node, self.enrolled.get(node))
        if name is None:
            return f"node {node}"
        return f"{name} on node {node}" if claims[name] > 1 else name

    def named(self, of_nodes: Mapping[int, T]) -> dict[str, T]:
        """Return what is known of nodes by their labs' names, in the same order."""
        return dict(zip(self.in_order(of_nodes), of_nodes.values(), strict=True))

    def exclude(self, reasons: Mapping[int, str]) -> None:
        """Put labs out of the run, by name."""
        self.excluded |= self.named(reasons)
        for node in reasons:
            self.names.pop(node, None)

    def forget(self, nodes: Iterable[int]) -> None:
        """Let labs that the coordinator has put out count no more, and put them out of the run."""
        for node in set(nodes) & set(self.accepted):
            self.accepted.remove(node)
            if node in self.names:
                self.exclude({node: REVOKED})

    def needed(self, share: float) -> int:
        """Return how many labs a quorum of `share` is: at least one."""
        return quorum_of(len(self.accepted), share)

    def require_quorum(
        self, present: int, share: float, phase: str, missing: Mapping[str, str]
    ) -> None:
        """Raise QuorumError, naming who is missing, if fewer than `share` of the labs are present.

        Examples
        --------
        >>> roster = Roster(accepted=[2, 3, 4])
        >>> roster.require_quorum(1, 0.67, "round 4", {"celle": "no reply in time"})
        Traceback (most recent call last):
        ...
        common.errors.QuorumError: round 4: 1 of 3 labs took part and the quorum is 2; missing: \
celle (no reply in time)
        """
        needed = self.needed(share)
        if present < needed:
            listed = "; ".join(f"{name} ({why})" for name, why in missing.items())
            raise QuorumError(
                f"{phase}: {present} of {len(self.accepted)} labs took part and the quorum is "
                f"{needed}; missing: {listed or 'all'}"
            )


def quorum_of(num_labs: int, share: float) -> int:
    """Return how many of some labs a share is: at least one.

    A share is given to two decimals, so that 0.67 of three labs is two of them.

    Examples
    --------
    >>> [quorum_of(3, share) for share in (0.34, 0.67, 0.68, 1.0)]
    [2, 2, 3, 3]
    """
    thirds = Fraction(share).limit_denominator(3)
    exact = thirds if abs(thirds - Fraction(share)) < Fraction(4, 1000) else Fraction(share)
    return max(1, ceil(exact * num_labs - Fraction(1, 10**9)))
