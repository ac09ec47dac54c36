"""The model that a simulation leaves: what its labs would be handed after a run of their own."""

from __future__ import annotations

from dataclasses import replace

from client.evaluation import calibrate, evaluate
from common.release import Release
from server.evidence import Evaluation
from server.release import release_of
from simulation.experiment import Outcome


def simulated_release(outcome: Outcome) -> Release:
    """Return the federated head of the first fold, with all that goes with it.

    Labs in one process hide nothing from each other: errors and intervals are of all specimens that
    the fold holds out, also of labs that hold out fewer than `min_specimens`.

    Parameters
    ----------
    outcome : Outcome
        Of a simulation in which the mode federated ran.
    """
    result, federation = outcome.evidence.results[0], outcome.consortium.federation
    head, standardiser, products = result.head, result.standardiser, result.products
    ridge = None if products is None else products.baseline
    novelty = None if products is None else products.novelty
    held_out = {
        lab.lab: lab.take(fold == 0)
        for lab, fold in zip(outcome.consortium.labs, outcome.fold, strict=True)
        if lab.lab in result.labs and (fold == 0).any()
    }
    evaluation = Evaluation(
        errors={
            lab: evaluate(head, standardiser, specimens, federation)
            for lab, specimens in held_out.items()
        },
        baseline={
            lab: evaluate(ridge, standardiser, specimens, federation)
            for lab, specimens in held_out.items()
            if ridge is not None
        },
        calibration={
            lab: calibrate(head, standardiser, specimens, federation, novelty)
            for lab, specimens in held_out.items()
        },
    )
    return release_of(federation, replace(result, evaluation=evaluation))
