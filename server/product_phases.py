"""The phases in which labs multiply their features: principal components, and sums along them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from flwr.app import Message

from common.components import num_components, principal_basis
from common.errors import ConfigurationError
from common.messages import COMPONENTS, GRAM, BasisRequest, ComponentsReply, GramReply, message_to
from common.projection import directions, find_projection
from common.standardise import Standardiser
from common.threads import one_thread
from server.asking import Asker, Check
from server.evidence import Products
from server.screening import check_gram, check_product
from server.strategy import Screened

REPLIES_BYTES = 128 * 2**20
"""Of labs' replies that are held at once; all of two dozen labs at full size."""


class ProductPhases(Asker):
    """Asks labs for sums of products; a lab may keep them back, and the others' are used."""

    def find_projection(self, standardiser: Standardiser) -> np.ndarray | None:
        """Find the projection that heads are trained on, if one was agreed.

        Returns
        -------
        ndarray of shape (n_features, n_components), float32, or None

        Raises
        ------
        QuorumError
            If too few labs answer.
        ConfigurationError
            If principal components were agreed, and no lab lets its sums leave it: waiting is in
            vain.
        """
        found = find_projection(
            self.federation,
            sum(self.roster.num_examples.values()),
            lambda basis: self._multiply(standardiser, basis),
        )
        if found is None and self.federation.head.projection == "pca":
            raise ConfigurationError(
                'head.projection = "pca" needs sums of products, and no lab lets them leave it; '
                "agree on another projection, or on gram-sums in the labs' policy.toml"
            )
        return found

    def sum_products(
        self, standardiser: Standardiser, projection: np.ndarray | None = None
    ) -> Products | None:
        """Sum products of specimens along the principal components of all labs.

        Returns
        -------
        Products or None
            None where no lab lets its sums leave it.
        """
        basis = self._basis(standardiser, projection)
        if basis is None:
            return None
        replies: dict[int, GramReply] = {}

        def check(node: int, reply: Message) -> None:
            gram = GramReply.from_record(
                reply.content,
                components=basis.shape[1],
                num_targets=len(self.federation.targets),
            )
            check_gram(
                gram,
                self.roster.num_examples[node],
                self.roster.target_counts[node],
                self.federation,
                standardiser,
            )
            replies[node] = gram

        self._ask_along(GRAM, standardiser, basis, check)
        of_labs = {name: reply.sums for name, reply in sorted(self.roster.named(replies).items())}
        if not of_labs:
            return None
        found = Products(basis=basis, of_labs=of_labs, variance=standardiser.total_variance)
        with one_thread():
            found.solve()
        return found

    def _basis(
        self, standardiser: Standardiser, projection: np.ndarray | None
    ) -> np.ndarray | None:
        """Return the directions to sum along: those of the heads' inputs, or found now."""
        num_features = self.federation.num_features
        components = num_components(
            num_features,
            sum(self.roster.num_examples.values()),
            len(self.roster.names),
            len(self.federation.targets),
        )
        if projection is not None and self.federation.head.projection == "pca":
            return np.ascontiguousarray(directions(projection)[:, :components])
        return principal_basis(
            lambda basis: self._multiply(standardiser, basis),
            num_features,
            components,
            self.federation.training.seed,
        )

    def _multiply(self, standardiser: Standardiser, basis: np.ndarray) -> np.ndarray | None:
        """Return the sum of what labs multiply, added in the order of their names."""
        summed: list[np.ndarray] = []
        products: dict[int, np.ndarray] = {}

        def check(node: int, reply: Message) -> None:
            found = ComponentsReply.from_record(
                reply.content, num_features=basis.shape[0], components=basis.shape[1]
            )
            check_product(found, self.roster.num_examples[node], self.federation)
            products[node] = found.product

        def add() -> None:
            for node in self.roster.by_name(products):
                summed[:] = [summed[0] + products[node] if summed else products[node]]
            products.clear()

        self._ask_along(COMPONENTS, standardiser, basis, check, after_group=add)
        return summed[0] if summed else None

    def _ask_along(
        self,
        message_type: str,
        standardiser: Standardiser,
        basis: np.ndarray,
        check: Check,
        after_group: Callable[[], None] = lambda: None,
    ) -> None:
        """Ask all labs, so many at a time that their replies fit into memory."""
        request = BasisRequest(terms=self._terms, standardiser=standardiser, basis=basis)
        record = request.to_record()
        nodes = self.roster.by_name(self.roster.names)
        at_once = max(1, REPLIES_BYTES // basis.nbytes)
        broken: dict[int, str] = {}
        failed: dict[int, str] = {}
        for start in range(0, len(nodes), at_once):
            group = nodes[start : start + at_once]
            screened = self._ask([message_to(node, message_type, record) for node in group], check)
            broken |= screened.broken
            failed |= screened.failed
            after_group()
        silent = Screened(accepted={}, broken=broken, failed=failed)
        self._require_answers(len(nodes), "sums of products", silent)
        self.roster.exclude(broken)
