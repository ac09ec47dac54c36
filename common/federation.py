"""The federation file: what all labs agree on, checked once when it is read.

Every lab and the coordinator hold the same copy. Its fingerprint, the SHA-256 of its canonical
JSON, stands in every request, and a lab refuses a request under another fingerprint. One file for
one agreement, read from top to bottom.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import AfterValidator, Field, model_validator

from common.configuration import Section, override, parse, parse_toml, read_toml
from common.descriptors import DESCRIPTORS
from common.errors import UnitError
from common.units import check_unit, seconds

FILE_NAME = "federation.toml"

SIMULATION = "simulation"
"""A table that may stand beside the agreement and is no part of it: virtual labs' own affair."""

BACKBONE_CHANNELS = {"efficientnet_lite0": 1280, "resnet18": 512, "resnet50": 2048}
"""Length of the vector that each backbone makes of one tile."""

STRATEGY_OPTIONS = {
    "fedavg": (),
    "fedprox": ("proximal_mu",),
    "fedavgm": ("server_learning_rate", "server_momentum"),
    "fedadam": ("server_learning_rate",),
    "fedyogi": ("server_learning_rate",),
    "trimmed_mean": ("trim_fraction",),
    "median": (),
    "krum": ("num_malicious",),
}
"""Flower's strategies, and the keys of ``[training]`` that belong to each."""


MOST_COMPONENTS = 256
"""So many directions of all labs' features are ever looked for."""

DEFAULT_COMPONENTS = 128

LONGEST_WAIT_S = 30 * 24 * 3600.0


def _known_unit(unit: str) -> str:
    try:
        return check_unit(unit)
    except UnitError as error:
        raise ValueError(str(error)) from error


def _is_duration(duration: str) -> str:
    try:
        length = seconds(duration)
    except UnitError as error:
        raise ValueError(str(error)) from error
    if not 0 < length <= LONGEST_WAIT_S:
        raise ValueError(f"a duration must be longer than zero and at most 30 days: {duration!r}")
    return duration


def _is_range(limits: tuple[float, float]) -> tuple[float, float]:
    if not math.isfinite(limits[1] - limits[0]) or not math.isfinite(limits[0] + limits[1]):
        raise ValueError(f"the limits are too far out to compute with, found {list(limits)}")
    if not limits[0] < limits[1]:
        raise ValueError(f"the lower limit must be below the upper one, found {list(limits)}")
    return limits


def _is_sha256(digest: str) -> str:
    if len(digest) != 64 or not set(digest) <= set("0123456789abcdef"):
        raise ValueError(f"a SHA-256 has 64 hexadecimal digits in lower case, found {digest!r}")
    return digest


def _is_descriptor(name: str) -> str:
    if name not in DESCRIPTORS:
        close = difflib.get_close_matches(name, DESCRIPTORS, n=1, cutoff=0.0)
        raise ValueError(f"there is no descriptor {name!r}; the closest is {close[0]!r}")
    return name


def _printable(text: str) -> str:
    if not text.isprintable():
        raise ValueError("holds a character that cannot be printed")
    return text


Unit = Annotated[str, AfterValidator(_known_unit)]
Duration = Annotated[str, AfterValidator(_is_duration)]
Limits = Annotated[tuple[float, float], AfterValidator(_is_range)]
Sha256 = Annotated[str, AfterValidator(_is_sha256)]
Positive = Annotated[float, Field(gt=0)]
# shown in terminals of people who have yet to decide whether they trust the file
Name = Annotated[str, Field(min_length=1, max_length=100), AfterValidator(_printable)]
Licence = Annotated[str, Field(min_length=1, max_length=200), AfterValidator(_printable)]


class Target(Section):
    """A property to predict: its unit, and the limits that physics sets to it."""

    unit: Unit
    range: Limits


class Covariate(Section):
    """A process variable that every lab records for every specimen."""

    unit: Unit
    range: Limits


class Imaging(Section):
    """At which scale the network sees a micrograph, and in which tiles."""

    scale: Literal["physical", "pixels", "fit"]
    um_per_px: Annotated[float, Field(ge=1e-5, le=1e3)] | None = None
    tile_px: int = Field(default=224, ge=32, le=2048)
    max_tiles: int = Field(default=32, ge=1, le=4096)

    @model_validator(mode="after")
    def _scale_and_um_per_px_agree(self) -> Imaging:
        if self.scale == "physical" and self.um_per_px is None:
            raise ValueError('scale = "physical" needs um_per_px, the scale for all labs')
        if self.scale != "physical" and self.um_per_px is not None:
            raise ValueError(f'um_per_px has no meaning with scale = "{self.scale}"; remove it')
        return self


class Backbone(Section):
    """The frozen network: its name, where its weights come from, and how labs may run it.

    ``precision = "bfloat16"`` lets labs whose hardware has it use it; others stay with float32.
    ``engine = "any"`` lets a lab use the fastest engine that it has, not torch alone.
    """

    name: Literal["efficientnet_lite0", "resnet18", "resnet50"]
    weights: str = "imagenet"
    sha256: Sha256 | None = None
    precision: Literal["float32", "bfloat16"] = "float32"
    engine: Literal["torch", "any"] = "torch"

    @model_validator(mode="after")
    def _half_precision_keeps_the_meaning(self) -> Backbone:
        if self.precision == "bfloat16" and self.name == "efficientnet_lite0":
            # docs/decisions/engines.md: cosine 0.97 with its own vectors in float32
            raise ValueError(
                'efficientnet_lite0 loses its meaning in bfloat16; write precision = "float32", or '
                "choose a ResNet"
            )
        return self

    @model_validator(mode="after")
    def _a_file_has_its_sha256(self) -> Backbone:
        if (self.weights == "imagenet") != (self.sha256 is None):
            raise ValueError(
                'weights = "imagenet" stands alone; the path of a weights file needs sha256 too'
            )
        return self


class Descriptors(Section):
    """Classical measures of the micrograph that the head sees beside the network's features."""

    names: tuple[Annotated[str, AfterValidator(_is_descriptor)], ...] = ()

    @model_validator(mode="after")
    def _each_stands_once(self) -> Descriptors:
        doubled = sorted({name for name in self.names if self.names.count(name) > 1})
        if doubled:
            raise ValueError(f"{doubled[0]!r} stands twice")
        return self


class Head(Section):
    """The multi-layer perceptron that is trained: widths of its hidden layers, and dropout.

    With a `projection`, it is trained on some `components` of the features: those along which all
    labs' specimens vary most (``pca``), or random ones (``random``).
    """

    hidden: tuple[Annotated[int, Field(ge=1, le=65536)], ...] = (64,)
    dropout: float = Field(default=0.1, ge=0, lt=1)
    projection: Literal["none", "pca", "random"] = "none"
    components: int | None = Field(default=None, ge=1, le=MOST_COMPONENTS)

    @model_validator(mode="after")
    def _components_need_a_projection(self) -> Head:
        if self.components is not None and self.projection == "none":
            raise ValueError(
                'components has no meaning with projection = "none"; remove it, or write '
                'projection = "pca"'
            )
        return self

    @property
    def num_components(self) -> int:
        """How many inputs a projection leaves the head."""
        return self.components or DEFAULT_COMPONENTS


class Training(Section):
    """How the head is trained; keys of a strategy are refused under another strategy."""

    strategy: Literal[
        "fedavg",
        "fedprox",
        "fedavgm",
        "fedadam",
        "fedyogi",
        "trimmed_mean",
        "median",
        "krum",
        "ridge",
    ] = "fedavg"
    rounds: int = Field(default=40, ge=1, le=100_000)
    local_epochs: int = Field(default=2, ge=1, le=10_000)
    optimizer: Literal["adamw", "sgd"] = "adamw"
    learning_rate: Positive = 1e-3
    weight_decay: float = Field(default=1e-2, ge=0)
    batch_size: int = Field(default=16, ge=1)
    seed: int = Field(default=0, ge=0, lt=2**32)
    quorum: float = Field(default=0.67, gt=0, le=1)
    round_deadline: Duration = "10 min"
    proximal_mu: Positive | None = None
    server_learning_rate: Positive | None = None
    server_momentum: float | None = Field(default=None, ge=0, lt=1)
    trim_fraction: float | None = Field(default=None, ge=0, lt=0.5)
    num_malicious: int | None = Field(default=None, ge=0)

    @model_validator(mode="after")
    def _options_belong_to_the_strategy(self) -> Training:
        owners: dict[str, list[str]] = {}
        for strategy, options in STRATEGY_OPTIONS.items():
            for option in options:
                owners.setdefault(option, []).append(strategy)
        for option, strategies in owners.items():
            if getattr(self, option) is not None and self.strategy not in strategies:
                raise ValueError(
                    f"{option} belongs to {' and '.join(strategies)}, "
                    f'and the strategy is "{self.strategy}"'
                )
        return self


class Privacy(Section):
    """What a lab needs before anything of it leaves the lab, and what it lets others try.

    With ``cross_evaluation = true`` each lab's own head is tried at every lab after the training:
    it leaves the lab, and means of its errors come back, rounded.
    """

    min_specimens: int = Field(default=20, ge=2)
    cross_evaluation: bool = False


class ReleaseTerms(Section):
    """What the labs agreed on for the released model: under which licence its card hands it on."""

    licence: Licence | None = None


class Federation(Section):
    """The whole federation file."""

    name: Name
    targets: dict[Name, Target] = Field(min_length=1)
    imaging: Imaging
    backbone: Backbone
    descriptors: Descriptors = Descriptors()
    covariates: dict[Name, Covariate] = Field(default_factory=dict)
    head: Head = Head()
    training: Training = Training()
    privacy: Privacy = Privacy()
    release: ReleaseTerms = ReleaseTerms()

    @model_validator(mode="after")
    def _names_of_features_differ(self) -> Federation:
        for name in self.covariates:
            if name in self.descriptors.names:
                raise ValueError(f"{name!r} is a covariate and a descriptor; rename the covariate")
        return self

    @model_validator(mode="after")
    def _ridge_is_linear_and_one_round(self) -> Federation:
        if self.training.strategy == "ridge" and (self.head.hidden or self.training.rounds != 1):
            raise ValueError(
                'strategy = "ridge" solves a linear head in one round; write rounds = 1 under '
                "[training] and hidden = [] under [head]"
            )
        if self.training.strategy == "ridge" and self.head.projection != "none":
            raise ValueError(
                'strategy = "ridge" finds components of its own; write projection = "none" under '
                "[head]"
            )
        return self

    @property
    def num_deep_features(self) -> int:
        """Length of the deep part of a specimen's vector.

        Mean and standard deviation over tiles; with ``scale = "fit"`` a micrograph is one tile,
        which has no spread, and the mean stands alone.
        """
        channels = BACKBONE_CHANNELS[self.backbone.name]
        return channels if self.imaging.scale == "fit" else 2 * channels

    @property
    def num_features(self) -> int:
        """Length of a specimen's vector: deep features, descriptors, covariates."""
        return self.num_deep_features + len(self.descriptors.names) + len(self.covariates)

    @property
    def named_features(self) -> dict[str, str]:
        """The unit of each feature that has a name, after the deep ones, in their order."""
        has_scale = self.imaging.scale == "physical"
        described = {
            name: DESCRIPTORS[name].unit(has_scale=has_scale) for name in self.descriptors.names
        }
        return described | {name: covariate.unit for name, covariate in self.covariates.items()}

    @property
    def feature_shift(self) -> np.ndarray:
        """Public constants that features are summed about.

        Zero, typical values of descriptors, middles of covariates' ranges.
        """
        has_scale = self.imaging.scale == "physical"
        typical = [DESCRIPTORS[name].shift(has_scale=has_scale) for name in self.descriptors.names]
        middles = [sum(covariate.range) / 2 for covariate in self.covariates.values()]
        return np.concatenate([np.zeros(self.num_deep_features), typical, middles])

    @property
    def feature_weight(self) -> np.ndarray:
        """What each standardised feature is multiplied by before the head sees it.

        Thousands of deep features would drown a few with a name. Each group, deep features,
        descriptors, covariates, has the same variance in all (docs/decisions/feature-vector.md).
        """
        deep, named = self.num_deep_features, (len(self.descriptors.names), len(self.covariates))
        weights = [np.full(count, (deep / max(count, 1)) ** 0.5) for count in (deep, *named)]
        return np.concatenate(weights)

    @property
    def target_shift(self) -> np.ndarray:
        """Middle of each target's range: the public constants that sums are taken about."""
        return np.array([sum(target.range) / 2 for target in self.targets.values()])

    def to_share(self) -> dict[str, Any]:
        """Return the file as it may be handed on: of a weights file its name, and nobody's folder.

        It is looked for beside the file that names it.
        """
        data = self.model_dump(mode="json", exclude_none=True)
        if self.backbone.sha256 is not None:
            data["backbone"]["weights"] = Path(self.backbone.weights).name
        return data

    def canonical_json(self) -> str:
        """Return the file as JSON with sorted keys and no blanks, the text that is hashed.

        Where a weights file lies is each site's own affair: its SHA-256 stands for it.
        """
        data = self.model_dump(mode="json")
        if self.backbone.sha256 is not None:
            data["backbone"]["weights"] = "file"
        return json.dumps(data, sort_keys=True, separators=(",", ":"))

    def fingerprint(self) -> str:
        """Return the SHA-256 of the canonical JSON, in hexadecimal."""
        return self._fingerprint

    @cached_property
    def _fingerprint(self) -> str:
        return hashlib.sha256(self.canonical_json().encode()).hexdigest()


def load_federation(path: Path, assignments: Sequence[str] = ()) -> Federation:
    """Read ``federation.toml``, with some keys overridden if asked for.

    Parameters
    ----------
    path : Path
        The file, or the folder that holds it.
    assignments : sequence of str
        Such as ``"training.rounds=10"``.

    Returns
    -------
    Federation
        The path of a weights file is made absolute; a relative one starts at this file.

    Raises
    ------
    ConfigurationError
        Names each wrong key, the rule and the value found.
    """
    if path.is_dir():
        path = path / FILE_NAME
    data = override(read_toml(path), list(assignments))
    federation = parse(Federation, _agreement(data), str(path))
    backbone = federation.backbone
    if backbone.sha256 is None:
        return federation
    beside = path.absolute().parent / backbone.weights
    return federation.replace(backbone=backbone.replace(weights=str(beside)).model_dump())


def parse_federation(text: str, source: str) -> Federation:
    """Read the text of a federation file that came from elsewhere.

    Raises
    ------
    ConfigurationError
        Names the source, each wrong key, the rule and the value found.
    """
    return parse(Federation, _agreement(parse_toml(text, source)), source)


def read_simulation(path: Path, assignments: Sequence[str] = ()) -> object:
    """Return what stands under ``[simulation]`` in ``federation.toml``, unread; None if nothing.

    Raises
    ------
    ConfigurationError
        If the file cannot be read.
    """
    if path.is_dir():
        path = path / FILE_NAME
    return override(read_toml(path), list(assignments)).get(SIMULATION)


def _agreement(data: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in data.items() if key != SIMULATION}
