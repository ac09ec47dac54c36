"""Each lab's own head, tried at every lab: how far what one lab has learned holds at the others."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np
from flwr.app import Message

from common.errors import NO_REPLY, NOT_CONNECTED
from common.head import HeadArrays, federation_shapes
from common.messages import (
    OWN_MODEL,
    TRIAL,
    ModelRequest,
    OwnModelReply,
    TrialReply,
    message_to,
)
from common.report.content import MOST_LABS
from server.asking import Asker
from server.evidence import CrossErrors
from server.screening import check_own_model
from server.screening_errors import check_trial
from server.strategy import Screened


class CrossEvaluation(Asker):
    """Asks labs for heads of their own and has all labs try them; a lab may keep back either.

    There is no quorum: nothing but a page of the report hangs on it.
    """

    def cross_evaluate(self) -> CrossErrors:
        """Try each lab's own head on every lab's held-out specimens.

        Heads are handed on in an order that says nothing of their labs, and are kept nowhere. A lab
        that is silent once is not waited for again.

        Returns
        -------
        mapping of str to mapping of str to ndarray of shape (n_targets,)
            By the lab that trained the head, and the lab that tried it, of those that are still in;
            empty where there are more labs than a matrix shows.
        """
        if len(self.roster.names) > MOST_LABS:
            return {}
        heads, silent = self._own_heads()
        errors: dict[int, dict[int, TrialReply]] = {}
        for node in sorted(heads, key=lambda node: _digest(heads[node].head)):
            present = set(self.roster.names) - silent
            if node in self.roster.names:
                errors[node], silent_now = self._try(heads[node], present)
                silent |= silent_now
        rows = {self.roster.name(node): self._row(node, errors) for node in self._still_in(errors)}
        return {lab: row for lab, row in rows.items() if row}

    def _row(self, node: int, errors: dict[int, dict[int, TrialReply]]) -> dict[str, np.ndarray]:
        """Return what a lab's head is worth, by the labs that tried it.

        An error larger than a target's range is no number to compare with: it is left out.
        """
        learned = self.roster.target_counts[node] > 0
        widths = np.array([t.range[1] - t.range[0] for t in self.federation.targets.values()])
        found = {}
        for other in self._still_in(errors[node]):
            trial = errors[node][other]
            told = learned & (trial.count > 0) & (trial.error <= widths)
            found[self.roster.name(other)] = np.where(told, trial.error, np.nan)
        return found

    def _still_in(self, nodes: Iterable[int]) -> list[int]:
        return [node for node in self.roster.by_name(nodes) if node in self.roster.names]

    def _own_heads(self) -> tuple[dict[int, OwnModelReply], set[int]]:
        """Return labs' own heads, and the labs that were silent."""
        shapes = federation_shapes(self.federation)
        heads: dict[int, OwnModelReply] = {}

        def check(node: int, reply: Message) -> None:
            own = OwnModelReply.from_record(reply.content, shapes=shapes)
            check_own_model(own, self.roster.num_examples[node], self.federation)
            heads[node] = own

        record = self._terms.to_record()
        requests = [message_to(node, OWN_MODEL, record) for node in self.roster.names]
        return heads, self._silent(self._ask(requests, check))

    def _try(
        self, own: OwnModelReply, nodes: Iterable[int]
    ) -> tuple[dict[int, TrialReply], set[int]]:
        """Return what labs tell of a head, and the labs that were silent."""
        num_targets = len(self.federation.targets)
        errors: dict[int, TrialReply] = {}

        def check(node: int, reply: Message) -> None:
            trial = TrialReply.from_record(reply.content, num_targets=num_targets)
            num_examples = self.roster.num_examples[node]
            check_trial(trial, num_examples, self.held_out_one_in)
            errors[node] = trial

        record = ModelRequest(
            terms=self._terms, head=own.head, standardiser=own.standardiser
        ).to_record()
        requests = [message_to(node, TRIAL, record) for node in sorted(nodes)]
        return errors, self._silent(self._ask(requests, check))

    def _silent(self, screened: Screened) -> set[int]:
        """Put out labs whose reply breaks the schema, and return those that gave none in time."""
        self.roster.exclude(screened.broken)
        return {n for n, why in screened.failed.items() if why in (NO_REPLY, NOT_CONNECTED)}


def _digest(head: HeadArrays) -> bytes:
    found = hashlib.sha256()
    for array in head.values():
        found.update(array.tobytes())
    return found.digest()
