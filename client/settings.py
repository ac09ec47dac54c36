"""The lab file: what the columns, units and file names of one lab's folder mean."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from client.findings import printable
from common.configuration import Section, parse, read_toml
from common.errors import ConfigurationError
from common.federation import Limits, Unit

FILE_NAME = "lab.toml"

GUIDE = "docs/lab-file.md"

METADATA = "metadata"
"""The word in place of a number for a scale that stands in the image files themselves."""

UmPerPx: TypeAlias = float | tuple[float, float]
"""µm per px: one number for square pixels, else across and down the upright image."""


def _is_delimiter(text: str) -> str:
    if len(text) != 1:
        raise ValueError(f"must be one character, found {text!r}")
    # cells hold letters, digits and quotes themselves, and a row ends with its line
    if text.isalnum() or text in "\"'" or not (text.isprintable() or text == "\t"):
        raise ValueError(f"must be a sign such as a comma, a semicolon or a tab, found {text!r}")
    return text


def _is_scale(given: Any) -> Any:
    """Say in one sentence what pydantic says once for each kind of value that is allowed."""
    if given is None or isinstance(given, str):
        return given
    pair = given if isinstance(given, tuple) else (given, given)
    if len(pair) != 2 or not all(
        type(side) in (int, float) and 0 < side < math.inf for side in pair
    ):
        raise ValueError(
            "must be a number above zero, a pair [across, down] of such numbers, "
            f'the name of a column, or "{METADATA}"; found {given!r}'
        )
    return given


class Data(Section):
    """Where the lab's files are, and how to read them."""

    table: str
    images: str
    specimen: str
    image: str
    um_per_px: Annotated[UmPerPx | str | None, BeforeValidator(_is_scale)] = None
    split_group: str | None = None
    delimiter: Annotated[str, AfterValidator(_is_delimiter)] = ","
    decimal: Literal[".", ","] = "."
    missing: tuple[str, ...] = ()
    skip_without_image: bool = False
    bit_depth: int | None = Field(default=None, ge=1, le=16)
    intensity_range: Limits | None = None
    crop_bottom: float = Field(default=0.0, ge=0, lt=0.5)
    page: int | None = Field(default=None, ge=0)
    checksums: str | None = None

    def rows_kept(self, height: int) -> int:
        """Return how many rows of an upright image of `height` rows lie above the cut.

        Examples
        --------
        >>> data = Data(table="t.csv", images=".", specimen="id", image="{id}.tif")
        >>> data.rows_kept(768), data.replace(crop_bottom=0.084).rows_kept(768)
        (768, 703)
        """
        return height - round(height * self.crop_bottom)

    @model_validator(mode="after")
    def _the_signs_differ(self) -> Data:
        if self.delimiter == self.decimal:
            raise ValueError(
                f"delimiter and decimal are both {self.delimiter!r}; if the table's cells stand "
                'between semicolons, write delimiter = ";", else export the table so, or write '
                "numbers with a decimal point"
            )
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


def require_lab(folder: Path) -> None:
    """Refuse a path that is no lab's folder, with what to name in its place.

    Raises
    ------
    ConfigurationError
    """
    shown = printable(str(folder))
    # whatever has the name is meant; what is no regular file is refused when it is read
    if os.path.lexists(folder / FILE_NAME):
        return
    if not os.path.lexists(folder):
        raise ConfigurationError(
            f"{shown} does not exist; name the lab's folder, which holds {FILE_NAME}"
        )
    if folder.is_file():
        above = printable(str(folder.parent))
        raise ConfigurationError(
            f"{shown} is a file; name the lab's folder, {above}, and not a file in it"
        )
    raise ConfigurationError(
        f"{shown} holds no {FILE_NAME}, which says what a lab's columns, units and file names "
        f"mean; {GUIDE} shows one, with all its keys"
    )


def load_settings(folder: Path) -> LabSettings:
    """Read ``lab.toml`` in `folder`.

    Raises
    ------
    ConfigurationError
        If there is none; names each wrong key, the rule and the value found.
    """
    require_lab(folder)
    path = folder / FILE_NAME
    return parse(LabSettings, read_toml(path), str(path))
