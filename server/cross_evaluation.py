"""Each lab's own head, tried at every lab: how far what one lab has learned holds at the others."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from flwr.app import Message

from common.errors import NO_REPLY, NOT_CONNECTED
from common.head import federation_shapes
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
from server.screening import check_number
from server.strategy import Screened


class CrossEvaluation(Asker):
    """Asks labs for heads of their own and has all labs try them; a lab may keep back either.

    There is no quorum: nothing but a page of the report hangs on it.
    """

    def cross_evaluate(self) -> CrossErrors:
        """Try each lab's own head on every lab's held-out specimens.

        Heads are handed on without a name, and are kept nowhere. A lab that is silent once is not
        waited for again.

        Returns
        -------
        mapping of str to mapping of str to ndarray of shape (n_targets,)
            By the lab that trained the head, and the lab that tried it; empty where there are more
            labs than a matrix shows.
        """
        if len(self.roster.names) > MOST_LABS:
            return {}
        names = {node: self.roster.name(node) for node in self.roster.names}
        heads, silent = self._own_heads()
        present, found = set(names) - silent, {}
        for node in self.roster.by_name(heads):
            own = heads[node]
            request = ModelRequest(terms=self._terms, head=own.head, standardiser=own.standardiser)
            errors, silent = self._try(request, present & set(self.roster.names))
            present -= silent
            learned = self.roster.target_counts[node] > 0
            found[names[node]] = {
                names[other]: np.where(learned & (reply.count > 0), reply.error, np.nan)
                for other, reply in sorted(errors.items(), key=lambda item: names[item[0]])
            }
        return found

    def _own_heads(self) -> tuple[dict[int, OwnModelReply], set[int]]:
        """Return labs' own heads, and the labs that were silent."""
        shapes = federation_shapes(self.federation)
        heads: dict[int, OwnModelReply] = {}

        def check(node: int, reply: Message) -> None:
            own = OwnModelReply.from_record(reply.content, shapes=shapes)
            check_number(own.num_examples, self.roster.num_examples[node])
            heads[node] = own

        record = self._terms.to_record()
        requests = [message_to(node, OWN_MODEL, record) for node in self.roster.names]
        return heads, self._silent(self._ask(requests, check))

    def _try(
        self, request: ModelRequest, nodes: Iterable[int]
    ) -> tuple[dict[int, TrialReply], set[int]]:
        """Return what labs tell of a head, and the labs that were silent."""
        num_targets = len(self.federation.targets)
        errors: dict[int, TrialReply] = {}

        def check(node: int, reply: Message) -> None:
            errors[node] = TrialReply.from_record(reply.content, num_targets=num_targets)

        record = request.to_record()
        requests = [message_to(node, TRIAL, record) for node in sorted(nodes)]
        return errors, self._silent(self._ask(requests, check))

    def _silent(self, screened: Screened) -> set[int]:
        """Put out labs whose reply breaks the schema, and return those that gave none in time."""
        self.roster.exclude(screened.broken)
        return {n for n, why in screened.failed.items() if why in (NO_REPLY, NOT_CONNECTED)}
