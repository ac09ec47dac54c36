"""A lab's own version of the shared head: its last layer, trained a little longer at the lab.

Fine-tuning the last layer alone (Collins et al. 2021, ICML, arXiv 2102.07078) leaves what all labs
have learned together in place. Whether a lab is better off with it is decided on specimens that
neither version was trained on (`client.choice`), not here.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from client.training import plan_for, train_head
from common.federation import Federation
from common.head import HeadArrays, predict
from common.seeds import seed_for

EPOCHS = 10


def personalised(
    head: HeadArrays, features: np.ndarray, targets: np.ndarray, federation: Federation, lab: str
) -> HeadArrays:
    """Train the last layer of a head on one lab's specimens; the other layers stay.

    Parameters
    ----------
    head : mapping of name to ndarray
    features : ndarray of shape (n_specimens, n_features), float32, standardised
    targets : ndarray of shape (n_specimens, n_targets), float32, standardised, NaN = missing
    federation : Federation
    lab : str
        Its name; each lab shuffles by itself.

    Returns
    -------
    mapping of name to ndarray

    Raises
    ------
    DivergedError
        If the head is not finite any more.
    """
    last = len(head) // 2 - 1
    before = {name: array for name, array in head.items() if int(name.split(".")[0]) < last}
    hidden = np.maximum(predict(before, features), 0.0) if before else features
    plan = plan_for(
        federation,
        epochs=EPOCHS,
        seed=seed_for(federation.training.seed, "personalise", lab),
        proximal_mu=0.0,
    )
    outermost = {"0.weight": head[f"{last}.weight"], "0.bias": head[f"{last}.bias"]}
    # what the layers before drop is dropped by none here: there is no hidden layer left
    trained, _ = train_head(outermost, hidden, targets, replace(plan, dropout=0.0))
    own = {f"{last}.weight": trained["0.weight"], f"{last}.bias": trained["0.bias"]}
    return dict(head) | own
