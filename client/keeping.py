"""The model that a run ends with, at a lab: kept at once, and judged when nobody waits any more.

Judging trains a head of the lab's own and draws a page, which may take longer than the other labs
and the coordinator wait. What came is kept beside the model until it is judged, so that a lab that
is stopped meanwhile goes on at its next start.
"""

from __future__ import annotations

import hashlib
import json
import logging
from pathlib import Path

from google.protobuf.message import DecodeError

from client.judgement import judge
from client.lab import Lab
from client.own_report import report_path, write_own_report
from client.own_version import keep_own_version
from common.bundle import Model
from common.errors import CrossplyError, StateError
from common.federation import Federation
from common.files import write_atomically
from common.link_pb2 import Content
from common.messages import ReleaseRequest
from common.release import Release
from common.threads import one_thread
from common.wire import from_content, to_content

log = logging.getLogger(__name__)

SPLIT_BYTES = hashlib.sha256().digest_size

NOT_YET = "the model is kept, and not judged yet: %s"


def to_judge_path(model: Path) -> Path:
    """Return where a release waits to be judged: beside its folder.

    Examples
    --------
    >>> to_judge_path(Path("state/model")).as_posix()
    'state/model-to-judge'
    """
    return model.parent / f"{model.name}-to-judge"


def keep(request: ReleaseRequest, lab: Lab, model: Path) -> None:
    """Keep a model, and beside it what there is to judge, unless all of it is there.

    Parameters
    ----------
    request : ReleaseRequest
    lab : Lab
    model : Path
        The folder to keep it in.

    Raises
    ------
    StateError
        If the model cannot be written.
    """
    release = _release_of(request, lab.federation)
    is_kept = release.is_in(model)
    if is_kept and report_path(model).exists():
        return
    # the model is what a lab has waited for: nothing beside it may keep it from it
    try:
        # the report comes last and says that all is there: no older one may say so
        report_path(model).unlink(missing_ok=True)
    except OSError as error:
        log.warning("the report of an earlier model stays: %s", error)
    try:
        # first: a lab that is killed before the model comes has nothing to judge, and sees that
        content = to_content(request.to_record()).SerializeToString()
        write_atomically(to_judge_path(model), _split_of(lab) + content)
    except OSError as error:
        log.warning("the model is kept, and cannot be judged: %s", error)
    if not is_kept:
        release.write(model)


def judge_kept(lab: Lab, model: Path) -> None:
    """Judge a model that has been kept, unless it was: the lab's own version, then its report.

    Nothing about it fails a run: the lab's log says why, and the next call tries again.
    """
    path = to_judge_path(model)
    try:
        if not path.exists():
            return
        release, split = _read(path, lab.federation)
        if not release.is_in(model):
            log.warning("not judged: %s is of another model than %s", path, model)
        elif split != _split_of(lab):
            # some that the model was trained on would be held out now
            log.warning("not judged: the lab's specimens are not those that it trained on any more")
        else:
            log.info("judging what the model is worth to this lab")
            with one_thread():
                judged = judge(lab, release)
                keep_own_version(judged.own, release.digest, model)
                write_own_report(lab, release, judged, model)
        path.unlink()
    except (CrossplyError, OSError) as error:
        log.warning(NOT_YET, error)
    except Exception:
        log.exception(NOT_YET, "an error of ours")


def _release_of(request: ReleaseRequest, federation: Federation) -> Release:
    model = request.model
    return Release(
        federation=federation,
        model=Model(
            head=model.head, standardiser=model.standardiser, fingerprint=model.terms.fingerprint
        ),
        provenance=request.provenance,
        novelty=request.novelty,
        baseline=request.baseline,
    )


def _split_of(lab: Lab) -> bytes:
    """Return the SHA-256 of which specimens are trained on, and which are held out."""
    split = json.dumps([lab.training.ids, lab.held_out.ids])
    return hashlib.sha256(split.encode()).digest()


def _read(path: Path, federation: Federation) -> tuple[Release, bytes]:
    """Return what waits to be judged, and the split that the lab had when it came."""
    content = path.read_bytes()
    split, content = content[:SPLIT_BYTES], content[SPLIT_BYTES:]
    try:
        record = from_content(Content.FromString(content), StateError)
        request = ReleaseRequest.from_record(record, federation=federation)
    except (CrossplyError, DecodeError) as error:
        raise StateError(f"{path} was cut or altered; remove it") from error
    return _release_of(request, federation), split
