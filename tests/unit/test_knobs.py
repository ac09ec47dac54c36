"""A new knob costs something: it has to be written down here too."""

import re
import tomllib
from pathlib import Path
from typing import Any

import typer.main

import crossply
from client.policy import Policy
from client.settings import GUIDE, LabSettings
from common.configuration import Section, parse
from common.federation import Federation
from simulation.scenarios.scenario import Scenario
from simulation.sweep.settings import Sweep


def keys(model: type[Section], prefix: str = "") -> set[str]:
    found: set[str] = set()
    for name, field in model.model_fields.items():
        inner: Any = field.annotation
        inside = [inner, *getattr(inner, "__args__", ())]
        sections = [part for part in inside if isinstance(part, type) and issubclass(part, Section)]
        if sections:
            found |= keys(sections[0], f"{prefix}{name}.")
        else:
            found.add(f"{prefix}{name}")
    return found


def test_keys_of_the_federation_file() -> None:
    assert keys(Federation) == {
        "name",
        "targets.unit",
        "targets.range",
        "covariates.unit",
        "covariates.range",
        "imaging.scale",
        "imaging.um_per_px",
        "imaging.tile_px",
        "imaging.max_tiles",
        "backbone.name",
        "backbone.weights",
        "backbone.sha256",
        "backbone.precision",
        "backbone.engine",
        "descriptors.names",
        "head.hidden",
        "head.dropout",
        "head.projection",
        "head.components",
        "training.strategy",
        "training.rounds",
        "training.local_epochs",
        "training.optimizer",
        "training.learning_rate",
        "training.weight_decay",
        "training.batch_size",
        "training.seed",
        "training.quorum",
        "training.round_deadline",
        "training.proximal_mu",
        "training.server_learning_rate",
        "training.server_momentum",
        "training.trim_fraction",
        "training.num_malicious",
        "privacy.min_specimens",
        "privacy.cross_evaluation",
        "release.licence",
    }


def test_keys_of_the_lab_file() -> None:
    assert keys(LabSettings) == {
        "name",
        "data.table",
        "data.images",
        "data.specimen",
        "data.image",
        "data.um_per_px",
        "data.split_group",
        "data.delimiter",
        "data.decimal",
        "data.missing",
        "data.skip_without_image",
        "data.bit_depth",
        "data.intensity_range",
        "data.crop_bottom",
        "data.page",
        "data.checksums",
        "targets.column",
        "targets.unit",
        "covariates.column",
        "covariates.unit",
        "partition.column",
    }


def test_every_key_of_the_lab_file_stands_in_its_guide_with_no_other() -> None:
    guide = (Path(__file__).parents[2] / GUIDE).read_text(encoding="utf-8")
    listed = re.findall(r"^\| `([^`]+)` \|", guide, re.MULTILINE)
    assert len(listed) == len(set(listed))
    assert {key.replace(".NAME.", ".") for key in listed} == keys(LabSettings)
    (example,) = re.findall(r"```toml\n(.*?)```", guide, re.DOTALL)
    assert parse(LabSettings, tomllib.loads(example), GUIDE).data.um_per_px == 0.25


def test_keys_of_a_scenario() -> None:
    assert keys(Scenario) == {
        "partition",
        "labs",
        "alpha",
        "target",
        "exponent",
        "seed",
        "label_noise",
        "unit_mistake.target",
        "unit_mistake.unit",
        "feature_shift",
        "dropout",
        "away",
        "leave",
        "seconds_per_specimen",
        "speed_spread",
        "slow",
        "hostile.attack",
        "hostile.factor",
        "hostile.from_round",
    }


def test_keys_of_the_policy() -> None:
    assert keys(Policy) == {
        "min_specimens",
        "metrics",
        "name_in_card",
        "round_counts",
        "rounds_per_day",
        "evaluations_per_day",
        "trials_per_day",
    }


def test_keys_of_the_sweep_file() -> None:
    assert keys(Sweep) == {
        "search.low",
        "search.high",
        "search.log",
        "search.choices",
        "sampler",
        "trials",
        "processes",
        "seed",
        "target",
        "folds",
        "inner_folds",
        "trial_deadline",
    }


def options(command: Any, prefix: str = "crossply") -> dict[str, set[str]]:
    named = {option for parameter in command.params for option in parameter.opts}
    found = {prefix: named}
    for name, sub in getattr(command, "commands", {}).items():
        found |= options(sub, f"{prefix} {name}")
    return found


def test_options_of_the_command() -> None:
    assert options(typer.main.get_command(crossply.app)) == {
        "crossply": {"--debug", "--version"},
        "crossply lab": set(),
        "crossply lab check": {"folder", "--federation", "--json"},
        "crossply lab features": {"folder", "--federation"},
        "crossply lab cache": {"--prune", "--unused"},
        "crossply lab join": {"invite", "--data", "--state", "--yes", "--fingerprint"},
        "crossply lab doctor": {"--state", "--json"},
        "crossply lab start": {"--state", "--patience", "--forever", "--log-json"},
        "crossply lab log": {"--state", "--verify", "--expect", "--last", "--json"},
        "crossply lab explain": {
            "model",
            "folder",
            "--saliency",
            "--shared",
            "--specimen",
            "--repeats",
            "--json",
        },
        "crossply lab export": {"model", "out"},
        "crossply lab predict": {
            "model",
            "images",
            "--um-per-px",
            "--lab",
            "--covariate",
            "--one-specimen",
            "--shared",
            "--csv",
            "--json",
        },
        "crossply server": set(),
        "crossply server init": {"federation", "--address", "--state"},
        "crossply server invite": {"name", "--valid", "--out", "--state"},
        "crossply server revoke": {"name", "--state"},
        "crossply server start": {"--state", "--wait", "--grace", "--bind", "--log-json"},
        "crossply server report": {"--state", "--contributions"},
        "crossply server status": {"--state", "--json"},
        "crossply simulate": {
            "folder",
            "--mode",
            "--folds",
            "--rounds",
            "--set",
            "--engine",
            "--track",
            "--out",
            "--json",
        },
        "crossply sweep": {"folder", "file", "--out", "--json"},
        "crossply demo": {"folder", "--json"},
    }
