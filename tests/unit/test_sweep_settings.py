"""The sweep file: what is refused before any work, and what a trial becomes."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from optuna.distributions import FloatDistribution, IntDistribution
from optuna.trial import TrialState, create_trial

from common.configuration import parse, parse_toml
from common.errors import ConfigurationError
from common.federation import Federation
from simulation.cli_sweep import require_optuna
from simulation.sweep.checking import space_of
from simulation.sweep.sampling import num_points, suggest
from simulation.sweep.settings import Sweep, read_sweep
from simulation.sweep.space import Space

RATES = {"training.learning_rate": {"low": 1e-4, "high": 1e-2, "log": True}}


def agreement(**tables: Any) -> Federation:
    return Federation.model_validate(
        {
            "name": "test",
            "targets": {"strength": {"unit": "MPa", "range": [0, 200]}},
            "imaging": {"scale": "physical", "um_per_px": 0.5},
            "backbone": {"name": "resnet18"},
        }
        | tables
    )


def read(**sweep: Any) -> Sweep:
    return parse(Sweep, {"search": RATES} | sweep, "sweep.toml")


def space(federation: Federation | None = None, **search: Any) -> Space:
    named = {key.replace("__", "."): value for key, value in search.items()}
    return space_of(read(search=named), federation or agreement(), Path(), "sweep.toml")


@pytest.mark.parametrize(
    ("sweep", "said"),
    [
        ({"search": {}}, "search: Dictionary should have at least 1 item"),
        ({"serach": {}}, "unknown key 'serach'; the closest known key is 'search'"),
        ({"search": {"head.dropout": {"lo": 0.1, "high": 0.2}}}, "closest known key is 'low'"),
        ({"search": {"head.dropout": {"low": 0.1}}}, "write low and high, or choices"),
        (
            {"search": {"head.dropout": {"low": 0.3, "high": 0.1}}},
            "low must be below high, found 0.3",
        ),
        (
            {"search": {"head.dropout": {"low": 0, "high": 0.1, "log": True}}},
            "log needs a low above",
        ),
        ({"search": {"head.dropout": {"choices": []}}}, "choices is empty"),
        ({"search": {"head.dropout": {"choices": [0.1, 0.1]}}}, "one choice stands twice"),
        ({"search": {"head.dropout": {"choices": [0.1], "low": 0}}}, "remove one of them"),
        ({"sampler": "grid"}, "a grid needs choices = [...] for training.learning_rate"),
        ({"sampler": "grid", "trials": 4}, "a grid tries all of its points; remove trials"),
        ({"trials": 3, "processes": 4}, "processes = 4 are more than the 3 trials"),
        ({"trials": 0}, "greater than or equal to 1, found 0"),
        ({"folds": 1}, "greater than or equal to 2, found 1"),
        ({"trial_deadline": "3 MPa"}, "trial_deadline"),
    ],
)
def test_a_wrong_sweep_file_is_one_sentence(sweep: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigurationError) as error:
        read(**sweep)
    assert said in str(error.value)
    assert str(error.value).startswith("sweep.toml: ") and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("key", "search", "said"),
    [
        (
            "training.learing_rate",
            {"low": 1, "high": 2},
            "the closest known key is 'training.",
        ),
        ("release.licence", {"choices": ["MIT", "CC0-1.0"]}, "changes no prediction"),
        ("training.seed", {"low": 1, "high": 2}, "cannot be searched over: it decides the folds"),
        (
            "targets.strength.range",
            {"choices": [[0, 1]]},
            "predict other things cannot be",
        ),
        ("name", {"choices": ["a"]}, "a name changes no prediction"),
        (
            "training.rounds",
            {"low": 0, "high": 9},
            "training.rounds: Input should be gr",
        ),
        ("training.rounds", {"low": 1.5, "high": 9}, "should be a valid integer"),
        (
            "head.dropout",
            {"choices": [0.1, 1.5]},
            "Input should be less than 1, found 1.5",
        ),
        (
            "training.strategy",
            {"choices": ["fedavg", "fedsgd"]},
            "training.strategy: Input should",
        ),
        ("training.proximal_mu", {"low": 0.1, "high": 1.0}, "proximal_mu belongs to fedprox"),
        ("imaging.scale", {"choices": ["fit"]}, "um_per_px has no meaning with scale"),
        ("head.hidden", {"choices": [[64], [0]]}, "head.hidden.0: Input should be greater"),
    ],
)
def test_keys_and_values_that_the_federation_does_not_allow(
    key: str, search: dict[str, Any], said: str
) -> None:
    with pytest.raises(ConfigurationError) as error:
        space_of(read(search={key: search}), agreement(), Path(), "sweep.toml")
    assert said in str(error.value)
    assert str(error.value).startswith("sweep.toml: search: ") and "\n" not in str(error.value)


def test_a_target_that_is_not_there() -> None:
    with pytest.raises(ConfigurationError, match="no target 'strenght'; the closest is 'strength'"):
        space_of(read(target="strenght"), agreement(), Path(), "sweep.toml")


def test_a_grid_that_never_ends() -> None:
    many = {"choices": [index / 200 for index in range(101)]}
    sweep = read(search={"head.dropout": many, "training.weight_decay": many}, sampler="grid")
    with pytest.raises(ConfigurationError, match="the grid has 10201 points, more than 10000"):
        space_of(sweep, agreement(), Path(), "sweep.toml")


def test_tables_may_be_nested_or_dotted(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text('[search."head.dropout"]\nchoices = [0.1]\n')
    (tmp_path / "b.toml").write_text("[search.head.dropout]\nchoices = [0.1]\n")
    one, other = (read_sweep(tmp_path / name) for name in ("a.toml", "b.toml"))
    assert one == other and one.digest() == other.digest()


def test_a_key_is_drawn_as_the_federation_file_has_it() -> None:
    rounds = {"low": 1, "high": 8}
    found = space(training__rounds=rounds, training__weight_decay=rounds)
    assert isinstance(found.distribution("training.rounds"), IntDistribution)
    assert isinstance(found.distribution("training.weight_decay"), FloatDistribution)


def test_what_belongs_to_another_strategy_is_left_away() -> None:
    own = agreement(training={"strategy": "fedprox", "proximal_mu": 0.1})
    found = space(own, training__strategy={"choices": ["fedprox", "median", "ridge"]},
                  training__proximal_mu={"low": 0.01, "high": 1.0},
                  head__projection={"choices": ["none", "pca"]},
                  head__components={"choices": [8, 16]})  # fmt: skip
    median = found.federation_of({"training.strategy": "median", "head.projection": "none"})
    assert median.training.proximal_mu is None and median.head.components is None
    ridge = found.federation_of({"training.strategy": "ridge"})
    assert (ridge.head.hidden, ridge.training.rounds) == ((), 1)
    assert not found.is_active("training.proximal_mu", {"training.strategy": "median"})
    assert not found.is_active("head.components", {"head.projection": "none"})
    assert found.own() == {
        "training.strategy": "fedprox",
        "head.projection": "none",
        "training.proximal_mu": 0.1,
    }
    assert space(own, training__proximal_mu={"low": 0.2, "high": 1.0}).own() is None


def test_a_grid_has_no_point_twice() -> None:
    found = space(training__strategy={"choices": ["fedavg", "fedprox", "ridge"]},
                  training__proximal_mu={"choices": [0.1, 1.0]},
                  head__hidden={"choices": [[], [64]]})  # fmt: skip
    # fedavg with 2 heads, fedprox with 2 x 2, and ridge, which has one head
    assert len(list(found.points())) == 2 + 4 + 1
    assert num_points(found, read(search={"head.hidden": {"choices": [1]}}, sampler="grid")) == 7


def trials(found: Space, sweep: Sweep, number: int) -> list[Any]:
    known: list[Any] = []
    for place in range(number):
        params = suggest(found, sweep, "choice", known)
        known.append(
            create_trial(
                state=TrialState.COMPLETE if place % 4 else TrialState.PRUNED,
                value=float(place * 7 % 5) if place % 4 else None,
                params=params,
                distributions={key: found.distribution(key) for key in params},
            )
        )
    return known


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_a_trial_follows_from_those_before_it_alone(sampler: str) -> None:
    found = space(training__learning_rate=RATES["training.learning_rate"],
                  head__hidden={"choices": [[], [64]]})  # fmt: skip
    sweep = read(sampler=sampler, trials=20, processes=3)
    known = trials(found, sweep, 16)
    assert [trial.params for trial in trials(found, sweep, 16)] == [t.params for t in known]
    # those of the last two count by their settings alone, known or not
    under_way = [*known[:14], known[14].params, known[15].params]
    assert suggest(found, sweep, "choice", under_way) == suggest(found, sweep, "choice", known)
    assert suggest(found, sweep, "fold 1", known) != suggest(found, sweep, "choice", known)
    # the file's own settings come first, and numbers are short enough to be read
    assert known[0].params == {"training.learning_rate": 1e-3, "head.hidden": "[64]"}
    assert all(len(f"{t.params['training.learning_rate']:.10g}") <= 9 for t in known)


def test_a_missing_optuna_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(ConfigurationError, match=r"needs optuna: pip install 'crossply\[sweep\]'"):
        require_optuna()


def test_the_guides_sweep_file_is_read() -> None:
    guide = (Path(__file__).parents[2] / "docs" / "sweeps.md").read_text(encoding="utf-8")
    text = guide.split("```toml\n")[1].split("```")[0]
    sweep = parse(Sweep, parse_toml(text, "docs"), "docs")
    found = space_of(sweep, agreement(), Path(), "docs")
    assert set(found.search) >= {"training.learning_rate", "head.hidden", "training.strategy"}
    assert suggest(found, sweep, "choice", [{}])
