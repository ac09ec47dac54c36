"""The lab's own policy: what it lets leave, in `policy.toml`; `client.gate` keeps to it."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from common.configuration import Section, parse, read_toml
from common.errors import ConfigurationError
from common.federation import Federation

TRAIN_LOSS, ERROR_SUMS, CALIBRATION_SUMS, GRAM_SUMS, OWN_MODEL = METRICS = (
    "train-loss",
    "error-sums",
    "calibration-sums",
    "gram-sums",
    "own-model",
)
"""What may leave beside statistics and the head, by the names that the messages give it."""

DEFAULT_POLICY = f"""\
# What this lab lets leave it. Yours alone: the coordinator never sees this file.

# So many specimens, with a target measured, your lab has at least if anything of that target is to
# leave it. Sums of errors leave if they are over as many held-out specimens; statistics, sums of
# products and updates, if they are over half as many that were trained on. Never fewer than the
# federation's own min_specimens, which holds where nothing stands here.
# min_specimens = 30

# What may leave beside the head and the statistics: the loss of training, whose mean over labs
# goes to all labs with the model; sums of errors on held-out specimens (without them, your lab is
# missing in the table of results); counts of how large these errors are, from which intervals
# follow; sums of products of features, from which the linear baseline, novelty and each lab's
# contribution follow; and, only where the agreement has cross_evaluation, a head that your lab
# trains alone, with the means and spreads of its features and targets, which all other labs get to
# try.
metrics = ["{TRAIN_LOSS}", "{ERROR_SUMS}", "{CALIBRATION_SUMS}", "{GRAM_SUMS}", "{OWN_MODEL}"]

# true: the card of the released model, which every lab gets and may hand on with it, lists your lab
# by its name. false: it stands there as "unnamed lab", with its rounded number of specimens and how
# a model of the others does there; who knows all the others can still tell. It is the
# coordinator, which knows your name, that leaves it out. Asked once, when a run begins.
name_in_card = true

# true: numbers of specimens leave rounded down to 1, 2 or 5 times a power of ten. Means and
# spreads stay as they are: of a table of round values, somebody who tries may still find the number
# that they are means of. Your lab's weight in the average is rounded with its number.
round_counts = false

# How many training rounds are answered in 24 hours.
rounds_per_day = 2000

# How many different evaluations are answered in 24 hours; a run asks for one, of its head and of
# the linear baseline beside it. The difference of two such sums may be about one specimen.
evaluations_per_day = 1

# How many different heads of single labs are tried on your held-out specimens in 24 hours, where
# the agreement has cross_evaluation; a run asks for one of each lab, and those beyond this number
# are missing in its matrix. Of each try a mean error leaves, rounded to two digits, and how many
# specimens it is over. A coordinator could make up heads that ask for certain specimens: 0 lets
# none be tried.
trials_per_day = 20
"""


class Policy(Section):
    """What stands in ``policy.toml``; the text of `DEFAULT_POLICY` explains it."""

    min_specimens: int | None = Field(default=None, ge=1)
    metrics: tuple[str, ...] = METRICS
    name_in_card: bool = True
    round_counts: bool = False
    rounds_per_day: int = Field(default=2000, ge=1)
    evaluations_per_day: int = Field(default=1, ge=1)
    trials_per_day: int = Field(default=20, ge=0)


def load_policy(path: Path, federation: Federation) -> Policy:
    """Read a lab's policy.

    Raises
    ------
    ConfigurationError
        If a key or a value is wrong, or asks for less than the federation does.
    """
    policy = parse(Policy, read_toml(path), str(path))
    unknown = set(policy.metrics) - set(METRICS)
    if unknown:
        raise ConfigurationError(
            f"{path}: metrics: {sorted(unknown)[0]!r} is none; choose among {', '.join(METRICS)}"
        )
    agreed = federation.privacy.min_specimens
    if policy.min_specimens is not None and policy.min_specimens < agreed:
        raise ConfigurationError(
            f"{path}: min_specimens = {policy.min_specimens} is less than the federation's "
            f"{agreed}; a lab may ask for more, not for less"
        )
    return policy
