"""Every error that crossply raises on purpose.

CrossplyError                     one sentence: what was found, where, what to do
├── ConfigurationError            federation.toml, lab.toml or an option is wrong
├── UnitError                     a unit is unknown, or two units do not convert
├── LabDataError                  a lab's folder is refused; carries the findings
├── WeightsError                  backbone weights are missing, altered or do not fit
├── WorkerError                   the processes that read images cannot be started
├── EngineError                   what runs a backbone or virtual labs is there and does not work
├── DivergedError                 training has left the finite numbers
├── ReplyError                    a lab's reply breaks the schema of the messages
├── RequestError                  a request to a lab breaks the schema, or is refused by it
├── PolicyError                   the lab's own policy keeps something from leaving it
├── LinkError                     coordinator and lab do not reach, or do not trust, each other
├── EnrolmentError                an invite is used, expired, altered or not for this coordinator
├── StateError                    a state folder is missing, in use, altered or of another run
└── QuorumError                   too few labs took part for the round to count

A command prints the sentence and exits with 1; a traceback is shown only with ``--debug``.
The ``code`` is the only part of an error that leaves a lab: the sentence may hold file names
and values, the code never does.
"""

from __future__ import annotations

from typing import ClassVar

INTERNAL = "internal"
"""The code of whatever was not raised on purpose."""

NO_REPLY = "no reply in time"
"""The code of a lab that was connected and did not answer in time."""

NOT_CONNECTED = "not connected"
"""The code of a lab that was away, and stayed away."""

REVOKED = "revoked"
"""The code of a lab that the coordinator has put out."""

LONGEST = 300
"""Characters of an error's sentence that quotes the other side."""

COORDINATORS_CODES = frozenset({NO_REPLY, NOT_CONNECTED, REVOKED})
"""What the coordinator says of a lab, and no lab of itself."""


class CrossplyError(Exception):
    """Base of all errors that crossply raises on purpose."""

    code: ClassVar[str] = "error"


class ConfigurationError(CrossplyError):
    """A configuration file or a command-line option is wrong."""

    code = "configuration"


class UnitError(CrossplyError):
    """A unit is unknown, or a value cannot be converted to the unit asked for."""

    code = "unit"


class LabDataError(CrossplyError):
    """A lab's folder cannot be used as it is; the message lists why."""

    code = "lab-data"


class WeightsError(CrossplyError):
    """The weights of a backbone are missing, altered, or belong to another network."""

    code = "weights"


class WorkerError(CrossplyError):
    """The processes that read images at a lab cannot be started."""

    code = "worker"


class EngineError(CrossplyError):
    """What runs the backbone at a lab, or virtual labs, is installed and does not work."""

    code = "engine"


class DivergedError(CrossplyError):
    """Training has left the finite numbers."""

    code = "diverged"


class ReplyError(CrossplyError):
    """A lab's reply breaks the schema: a key, a shape, a dtype, a count or a value."""

    code = "reply"

    def __init__(self, sentence: str) -> None:
        super().__init__(shortened(sentence))


class RequestError(CrossplyError):
    """A lab refuses a request: it breaks the schema, or the lab's agreement."""

    code = "request"

    def __init__(self, sentence: str) -> None:
        super().__init__(shortened(sentence))


class PolicyError(CrossplyError):
    """The lab's own policy keeps what would be sent from leaving it."""

    code = "policy"


class LinkError(CrossplyError):
    """Coordinator and lab do not reach each other, or one does not trust the other."""

    code = "link"


class EnrolmentError(CrossplyError):
    """An invite is used, expired, altered, revoked, or not for this coordinator."""

    code = "enrolment"


class StateError(CrossplyError):
    """A state folder is missing, in use by another process, altered, or of another run."""

    code = "state"


class QuorumError(CrossplyError):
    """Too few labs answered for the round to count."""

    code = "quorum"


def shortened(sentence: str) -> str:
    """Cut a sentence that may quote what somebody else has sent.

    Examples
    --------
    >>> len(shortened("found " + "x" * 10_000_000))
    300
    """
    return sentence if len(sentence) <= LONGEST else sentence[: LONGEST - 3] + "..."


def known_code(text: str | None) -> str:
    """Return `text` if it is the code of an error of ours, else ``unknown``.

    What stands in a reply as its reason may be the text of somebody's exception.

    Examples
    --------
    >>> known_code("lab-data"), known_code("/home/anna/steel.csv: 612.5")
    ('lab-data', 'unknown')
    """
    codes = {kind.code for kind in CrossplyError.__subclasses__()}
    codes |= {INTERNAL, *COORDINATORS_CODES}
    return text if text in codes else "unknown"
