"""What leaves a lab, in words: the one list that the agreement's screen and the README show."""

from __future__ import annotations

from common.federation import MOST_COMPONENTS

CROSS_EVALUATION = (
    "where `cross_evaluation` was agreed: a head that it trains on its specimens alone, with its "
    "means and spreads, which all labs of the run get to try; and for each such head the mean "
    "error on its held-out specimens, to two digits, and how many specimens that is over"
)

LEAVES = (
    "the lab's name and software version, which targets it has, and whether the released model may "
    "name it",
    "its number of specimens: rounded down in the handshake, exact in sums and updates",
    "count, sum and sum of squares of each feature, and of each target that it measured on at "
    "least {min_specimens}, over its training specimens",
    "the head's weights and the training loss, once a round",
    "sums of products of its training specimens' features with their components along at most "
    "{most_components} shared directions, and of these components with each other and with its "
    "targets",
    "sums of errors on its held-out specimens, to three digits, of the head and of a linear "
    "baseline, and counts of how large these errors are, for each target measured on at least "
    "{min_specimens} of them; counts of how novel these specimens are",
    CROSS_EVALUATION,
    "that it has kept the shared model",
    "an error's code",
)
"""One sentence for each kind of thing that `common.messages` can carry out of a lab."""

NEVER = (
    "micrographs, feature vectors, rows of the table, specimen ids, file names, error texts, code"
)


def leaves(min_specimens: int | str, *, cross_evaluation: bool = True) -> list[str]:
    """Return the sentences on what leaves a lab.

    Parameters
    ----------
    min_specimens : int or str
        The federation's number, or the name of its key.
    cross_evaluation : bool
        Whether that was agreed; without it nothing of it leaves.

    Examples
    --------
    >>> leaves(20)[-1]
    "an error's code"
    """
    return [
        text.format(min_specimens=min_specimens, most_components=MOST_COMPONENTS)
        for text in LEAVES
        if cross_evaluation or text != CROSS_EVALUATION
    ]
