"""The lab file: what the columns, units and file names of one lab's folder mean."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from common.configuration import Section, parse, read_toml
from common.federation import Limits, Positive, Unit

FILE_NAME = "lab.toml"


def _is_delimiter(text: str) -> str:
    if len(text) != 1:
        raise ValueError(f"must be one character, found {text!r}")
    # cells hold letters, digits and quotes themselves, and a row ends with its line
    if text.isalnum() or text in "\"'" or not (text.isprintable() or text == "\t"):
        raise ValueError(f"must be a sign such as a comma, a semicolon or a tab, found {text!r}")
    return text


class Data(Section):
    """Where the lab's files are, and how to read them."""

    table: str
    images: str
    specimen: str
    image: str
    um_per_px: Positive | str | None = None
    split_group: str | None = None
    delimiter: Annotated[str, AfterValidator(_is_delimiter)] = ","
    decimal: Literal[".", ","] = "."
    missing: tuple[str, ...] = ()
    skip_without_image: bool = False
    bit_depth: int | None = Field(default=None, ge=1, le=16)
    intensity_range: Limits | None = None
    page: int | None = Field(default=None, ge=0)
    checksums: str | None = None

    @model_validator(mode="after")
    def _the_signs_differ(self) -> Data:
        if self.delimiter == self.decimal:
            raise ValueError(f"delimiter and decimal are both {self.delimiter!r}")
        return self


class Measured(Section):
    """A column with a measured quantity, and the unit it is written in."""

    column: str
    unit: Unit


class Partition(Section):
    """In a pooled data set: the column whose values are the virtual labs."""

    column: str


class LabSettings(Section):
    """The whole lab file."""

    name: str | None = None
    data: Data
    targets: dict[str, Measured] = Field(min_length=1)
    covariates: dict[str, Measured] = Field(default_factory=dict)
    partition: Partition | None = None


def load_settings(folder: Path) -> LabSettings:
    """Read ``lab.toml`` in `folder`.

    Raises
    ------
    ConfigurationError
        Names each wrong key, the rule and the value found.
    """
    path = folder / FILE_NAME
    return parse(LabSettings, read_toml(path), str(path))
