"""What `lab check` says of the fifth that a run holds out, against what a run does."""

from __future__ import annotations

from typing import Any

import pytest

from client.findings import Finding, Findings, Level
from client.held_out import check_held_out, hold_out
from common.errors import LabDataError
from common.federation import Federation

# tests/conftest.py has no name that could be imported; `lab` is its LabFolder
Lab = Any


def said(lab: Lab, min_specimens: int = 4) -> Finding:
    lab.federation["privacy"]["min_specimens"] = min_specimens
    lab.write()
    dataset, _ = lab.check()
    findings = Findings()
    check_held_out(dataset, Federation.model_validate(lab.federation), findings)
    (finding,) = findings.items
    return finding


def in_batches(lab: Lab, number: int) -> None:
    lab.add_column("batch", [f"B{row % number}" for row in range(len(lab.rows))])
    lab.settings["data"]["split_group"] = "batch"


def test_enough_are_held_out(lab: Lab) -> None:
    finding = said(lab)
    assert (finding.level, finding.found) == (Level.PASS, "5 specimens will be held out")


def test_a_lab_is_told_that_its_errors_will_not_be(lab: Lab) -> None:
    finding = said(lab, min_specimens=20)
    assert finding.level is Level.FIX
    assert "5 values of strength, 5 values of modulus will be held out, fewer" in finding.found
    assert "about 100 specimens would be enough" in finding.action


def test_too_few_batches_stop_before_a_run_does(lab: Lab) -> None:
    in_batches(lab, 3)
    finding = said(lab)
    assert finding.level is Level.STOP
    assert "3 independent specimens" in finding.found and "split_group" in finding.action
    dataset, _ = lab.check()
    with pytest.raises(LabDataError, match=r"3 independent specimens.*at least 5 are needed"):
        hold_out(dataset.groups, Federation.model_validate(lab.federation), "aachen")


def test_five_batches_are_enough(lab: Lab) -> None:
    in_batches(lab, 5)
    assert said(lab).level is Level.PASS
