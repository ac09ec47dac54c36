import subprocess
import sys

import numpy as np
import pytest

from common.errors import UnitError
from common.units import SYMBOLS, check_unit, convert, registry, same_unit, seconds, symbol


@pytest.mark.parametrize(
    ("value", "unit", "to_unit", "expected"),
    [
        (1.0, "GPa", "MPa", 1000.0),
        (100.0, "ksi", "MPa", 689.4757),
        (1.0, "psi", "kPa", 6.894757),
        (250.0, "HV", "GPa", 2.4516625),
        (12.5, "um", "mm", 0.0125),
        (0.3, "dimensionless", "percent", 30.0),
        (180.0, "degC", "degF", 356.0),
        (453.15, "K", "degC", 180.0),
    ],
)
def test_conversions_of_the_trade(value: float, unit: str, to_unit: str, expected: float) -> None:
    assert convert(np.array([value]), unit, to_unit)[0] == pytest.approx(expected, rel=1e-6)


def test_missing_values_stay_missing() -> None:
    assert np.isnan(convert(np.array([np.nan]), "GPa", "MPa")[0])


def test_dimensions_must_agree() -> None:
    with pytest.raises(UnitError, match="'um' cannot be converted to 'MPa'"):
        convert(np.ones(1), "um", "MPa")


def test_spellings() -> None:
    assert same_unit("MPa", "megapascal") and same_unit("um", "µm")
    assert not same_unit("MPa", "um")
    assert not same_unit("MPa", "no such thing")


@pytest.mark.parametrize("unit", ["9**9**9", "x**9**9**9", "m" * 5000, "1e999", "m^99999", "$", ""])
def test_what_would_compute_for_hours_is_no_unit(unit: str) -> None:
    with pytest.raises(UnitError, match="unknown unit"):
        check_unit(unit)


@pytest.mark.parametrize("duration", ["10", "9**9**9 s", "-3 min", "1e400 s", "ten minutes", "s"])
def test_what_is_no_duration(duration: str) -> None:
    with pytest.raises(UnitError, match="is not a duration"):
        seconds(duration)


@pytest.mark.parametrize("unit", ["MPa*m^0.5", "W/(m K)", "kg/m**3", "µm", "J/m²", "1/s", "%"])
def test_units_that_people_write(unit: str) -> None:
    assert check_unit(unit) == unit


@pytest.mark.parametrize("unit", SYMBOLS)
def test_units_met_most_are_what_pint_says(unit: str) -> None:
    known = registry().Unit(unit)
    assert symbol(unit) == format(known, "~P")
    assert np.array_equal(convert(np.array([0.1, -3.0]), unit, unit), [0.1, -3.0])


@pytest.mark.parametrize("duration", ["30 s", "10 min", "1.5 h", "0.7min"])
def test_durations_met_most_are_what_pint_says(duration: str) -> None:
    assert seconds(duration) == float(registry().Quantity(duration).to("second").magnitude)


def test_who_meets_usual_units_only_does_not_wait_for_pint() -> None:
    code = """
import sys
from common.federation import Federation
Federation.model_validate({
    "name": "example",
    "targets": {"strength": {"unit": "MPa", "range": [0, 3000]}},
    "covariates": {"cure": {"unit": "degC", "range": [20, 250]}},
    "imaging": {"scale": "fit"},
    "backbone": {"name": "resnet18"},
})
print("pint" in sys.modules)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "False"
