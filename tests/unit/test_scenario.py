"""What a scenario may say, and the one sentence for what cannot be."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import tomli_w

from common.configuration import parse
from common.errors import ConfigurationError
from common.federation import Federation, load_federation, parse_federation
from simulation.scenarios.partition import names_of_labs
from simulation.scenarios.possible import load_possible, require_labs, require_possible
from simulation.scenarios.scenario import Scenario, load_scenario

AGREEMENT: dict[str, Any] = {
    "name": "test",
    "targets": {"strength": {"unit": "MPa", "range": [0, 200]}},
    "imaging": {"scale": "fit"},
    "backbone": {"name": "resnet18"},
    "training": {"rounds": 10, "quorum": 0.67},
}
GUIDE = Path(__file__).parents[2] / "docs" / "scenarios.md"


def scenario(**table: Any) -> Scenario:
    return parse(Scenario, table, "[simulation]")


def written(folder: Path, **table: Any) -> Path:
    path = folder / "federation.toml"
    path.write_text(tomli_w.dumps(AGREEMENT | ({"simulation": table} if table else {})))
    return path


def test_the_agreement_is_the_same_with_and_without_it(tmp_path: Path) -> None:
    without = load_federation(written(tmp_path)).fingerprint()
    path = written(tmp_path, dropout=0.2)
    assert load_federation(path).fingerprint() == without
    assert load_federation(path, ["simulation.dropout=0.9"]).fingerprint() == without
    # what a lab gets with an invite is the file as it stands
    assert parse_federation(path.read_text(), "the invite").fingerprint() == without


def test_real_sites_pass_over_what_a_scenario_says_wrong(tmp_path: Path) -> None:
    assert load_federation(written(tmp_path, drop="out")) == load_federation(written(tmp_path))


def test_it_is_read_from_the_file_and_from_assignments(tmp_path: Path) -> None:
    assert load_scenario(written(tmp_path)) is None
    assert load_scenario(written(tmp_path), ["simulation.dropout=0.2"]) == scenario(dropout=0.2)
    found = load_scenario(written(tmp_path, dropout=0.2), ["simulation.away={a=[3]}"])
    assert found == scenario(dropout={"every": 0.2}, away={"a": [3]})


def test_the_settings_read_back_to_the_same() -> None:
    table = tomllib.loads(re.findall(r"```toml\n(.*?)```", GUIDE.read_text(), re.DOTALL)[0])
    found = parse(Scenario, table["simulation"], "the guide")
    assert parse(Scenario, found.settings(), "again") == found
    assert parse(Scenario, tomllib.loads(tomli_w.dumps(found.settings())), "a file") == found


def test_the_guide_shows_a_scenario_that_can_be() -> None:
    table = tomllib.loads(re.findall(r"```toml\n(.*?)```", GUIDE.read_text(), re.DOTALL)[0])
    found = parse(Scenario, table["simulation"], "the guide")
    energy = {"strain_energy": {"unit": "dimensionless", "range": [0, 1000]}}
    federation = Federation.model_validate(AGREEMENT | {"targets": energy})
    require_possible(found, federation)
    require_labs(found, federation, names_of_labs(found.labs or 0))


def test_the_guide_shows_every_key() -> None:
    table = re.findall(r"```toml\n(.*?)```", GUIDE.read_text(), re.DOTALL)[0]
    for key in Scenario.model_fields:
        assert re.search(rf"^(# )?(\[simulation\.)?{key}\b", table, re.MULTILINE), key


@pytest.mark.parametrize(
    ("table", "sentence"),
    [
        ({"dropout": 2}, "dropout.every: Input should be less than or equal to 1, found 2"),
        ({"dropout": {"a": -0.1}}, "dropout.a: Input should be greater than or equal to 0"),
        ({"dropout": "often"}, "must be a number, or a table of labs and numbers; found 'often'"),
        ({"dropouts": 0.1}, "unknown key 'dropouts'; the closest known key is 'dropout'"),
        ({"labs": 3}, 'labs belongs to iid, dirichlet, power_law, and the partition is "column"'),
        ({"partition": "iid"}, 'partition = "iid" needs labs, their number'),
        ({"partition": "iid", "labs": 3, "alpha": 1.0}, "alpha belongs to dirichlet"),
        ({"partition": "dirichlet", "labs": 3, "exponent": 1.0}, "exponent belongs to power_law"),
        ({"partition": "iid", "labs": 1}, "labs: Input should be greater than or equal to 2"),
        ({"partition": "dirichlet", "labs": 3, "alpha": 1e308}, "less than or equal to 1000000"),
        ({"slow": {"a": 2.0}}, "slow needs seconds_per_specimen"),
        ({"speed_spread": 0.3}, "speed_spread needs seconds_per_specimen"),
        ({"away": {"a": [0]}}, "away.a.0: Input should be greater than or equal to 1"),
        ({"away": {"a": [2, 5]}, "leave": {"a": 4}}, "cannot be away in round 5 too"),
        (
            {"leave": {"a": 4}, "hostile": {"a": {"attack": "no_numbers", "from_round": 4}}},
            "a leaves for good in round 4, and cannot be hostile from round 4 on",
        ),
        ({"hostile": {"a": {"attack": "scaled"}}}, "factor belongs to scaled and label_scale"),
        ({"hostile": {"a": {"attack": "no_numbers", "factor": 2.0}}}, 'the attack is "no_numbers"'),
        (
            {"hostile": {"a": {"attack": "label_scale", "factor": 2.0, "from_round": 3}}},
            "remove from_round = 3",
        ),
        ({"unit_mistake": {"a": {"target": "x", "unit": "GigaPa"}}}, "unknown unit 'GigaPa'"),
    ],
)
def test_what_contradicts_itself_is_one_sentence(table: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigurationError, match=re.escape(sentence)) as error:
        scenario(**table)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("table", "sentence"),
    [
        ({"leave": {"a": 11}}, "leave.a names round 11, and training.rounds is 10"),
        ({"away": {"a": [1, 12]}}, "away.a names round 12, and training.rounds is 10"),
        (
            {"hostile": {"a": {"attack": "no_numbers", "from_round": 11}}},
            "hostile.a.from_round names round 11",
        ),
        (
            {"partition": "dirichlet", "labs": 2, "target": "stregth"},
            "target names the target 'stregth'; the closest of the federation's is 'strength'",
        ),
        (
            {"unit_mistake": {"a": {"target": "strength", "unit": "mm"}}},
            "unit_mistake.a: 'MPa' cannot be converted to 'mm'",
        ),
        (
            {"unit_mistake": {"a": {"target": "strength", "unit": "N/mm^2"}}},
            "unit_mistake.a.unit is 'N/mm^2', the federation's own: no mistake",
        ),
    ],
)
def test_what_the_agreement_rules_out_is_one_sentence(table: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigurationError, match=re.escape(sentence)):
        require_possible(scenario(**table), Federation.model_validate(AGREEMENT))


@pytest.mark.parametrize("key", ["dropout", "hostile.a"])
def test_ridge_has_no_rounds_that_anything_could_happen_in(key: str) -> None:
    ridge = Federation.model_validate(
        AGREEMENT | {"head": {"hidden": []}, "training": {"strategy": "ridge", "rounds": 1}}
    )
    table = {"dropout": 0.2} if key == "dropout" else {"hostile": {"a": {"attack": "no_numbers"}}}
    with pytest.raises(ConfigurationError, match=f'{key} is about rounds.* strategy = "ridge"'):
        require_possible(scenario(**table), ridge)
    require_possible(scenario(label_noise=0.1), ridge)


@pytest.mark.parametrize(
    ("table", "sentence"),
    [
        ({"slow": {"celle": 2.0}, "seconds_per_specimen": 1.0}, "the labs is 'c'"),
        ({"leave": {"every": 4}}, "the labs is"),
        ({"away": {"a": [3], "b": [3]}}, "round 3 lacks 2 of 3 labs (a, b), and training.quorum"),
        ({"leave": {"a": 4}, "away": {"b": [7]}}, "round 7 lacks 2 of 3 labs (a, b)"),
        ({"dropout": 1}, "round 1 lacks 3 of 3 labs (a, b, c), and training.quorum = 0.67 needs 2"),
    ],
)
def test_labs_that_are_not_there_and_rounds_that_cannot_count(
    table: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(ConfigurationError, match=re.escape(sentence)):
        require_labs(scenario(**table), Federation.model_validate(AGREEMENT), ["a", "b", "c"])


def test_names_that_a_partition_will_give_are_known_before_any_data(tmp_path: Path) -> None:
    federation = Federation.model_validate(AGREEMENT)
    path = written(tmp_path, partition="iid", labs=4, leave={"lab-005": 2})
    with pytest.raises(ConfigurationError, match="the closest of the labs is 'lab-00"):
        load_possible(path, federation)
    path = written(tmp_path, partition="iid", labs=5, leave={"lab-005": 2})
    assert load_possible(path, federation) is not None
