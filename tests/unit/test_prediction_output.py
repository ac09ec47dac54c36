"""Predictions as a person, a spreadsheet and a program read them."""

import csv
import io
import json

import numpy as np

from client.prediction import Predictions
from client.prediction_output import as_csv, as_json, sentences
from common.federation import Federation

FEDERATION = Federation.model_validate(
    {
        "name": "test",
        "targets": {
            "strength": {"unit": "MPa", "range": [0, 3000]},
            "void_share": {"unit": "dimensionless", "range": [0, 1]},
        },
        "imaging": {"scale": "fit"},
        "backbone": {"name": "resnet18"},
    }
)
NAN = np.nan
FOUND = Predictions(
    specimens=("=cmd|calc.tif", "b.tif"),
    values=np.array([[612.34, 0.02345], [1234.5, 0.1]]),
    lower=np.array([[[590.0, 0.021], [1200.0, NAN]], [[574.0, 0.02], [NAN, NAN]]]),
    upper=np.array([[[634.0, 0.026], [1270.0, NAN]], [[650.7, 0.027], [NAN, NAN]]]),
    inside=np.array([True, False]),
)


def test_sentences_have_the_digits_that_the_interval_allows() -> None:
    assert sentences(FOUND, FEDERATION) == [
        "=cmd|calc.tif: strength 612 MPa, 574 to 651 (90 %), inside the domain",
        "=cmd|calc.tif: void_share 0.0234, 0.0200 to 0.0270 (90 %), inside the domain",
        "b.tif: strength 1234 MPa, unlike any lab's specimens",
        "b.tif: void_share 0.100, unlike any lab's specimens",
    ]


def test_a_table_has_no_formulas_and_leaves_out_what_is_not_known() -> None:
    rows = list(csv.reader(io.StringIO(as_csv(FOUND, FEDERATION))))
    assert rows[0][:5] == ["specimen", "target", "unit", "value", "lower_80"]
    assert rows[1] == [
        *("'=cmd|calc.tif", "strength", "MPa", "612.34"),
        *("590.0", "634.0", "574.0", "650.7", "inside the domain"),
    ]
    assert rows[3][4:] == ["1200.0", "1270.0", "", "", "unlike any lab's specimens"]


def test_json_holds_finite_numbers_only() -> None:
    versions = {"strength": "shared", "void_share": "personalised"}
    told = json.loads(as_json(FOUND, FEDERATION, "all labs", versions), parse_constant=str)
    assert told["predictions"][0]["intervals"] == {"80": [590.0, 634.0], "90": [574.0, 650.7]}
    assert told["predictions"][3]["intervals"] == {}
    assert told["fingerprint"] == FEDERATION.fingerprint()
    assert told["versions"] == versions
