"""Reading a TOML file into a frozen, typed model, with messages a person can act on."""

from __future__ import annotations

import difflib
import stat
import tomllib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Self, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from common.errors import ConfigurationError

MAX_BYTES = 2**20
"""A TOML file of this project has some kilobytes; a larger one is something else."""


class Section(BaseModel):
    """A table of a TOML file: frozen, typed, and closed to keys it does not know.

    Types are strict, so that ``true`` is no number and ``2.0`` no count; an integer may stand
    where a number is asked for.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, strict=True)

    @model_validator(mode="before")
    @classmethod
    def _name_the_closest_key(cls, data: Any) -> Any:
        if not isinstance(data, Mapping):
            return data
        for key in data:
            if key not in cls.model_fields:
                close = closest_key(str(key), [*cls.model_fields, *leaves(cls)])
                raise ValueError(f"unknown key {str(key)!r}; the closest known key is {close!r}")
        # TOML has lists only, and a frozen model has tuples
        return {key: tuple(v) if isinstance(v, list) else v for key, v in data.items()}

    def replace(self, **changes: Any) -> Self:
        """Return a copy with some fields changed, checked like a file that is read."""
        return type(self).model_validate(self.model_dump() | changes)


def leaves(model: type[Section], prefix: str = "") -> dict[str, Any]:
    """Return the annotation of every key of a file by its dotted name; a free table is one key."""
    found: dict[str, Any] = {}
    for name, field in model.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, Section):
            found |= leaves(inner, f"{prefix}{name}.")
        else:
            found[f"{prefix}{name}"] = inner
    return found


def closest_key(key: str, known: Collection[str]) -> str:
    """Return the known key that was most likely meant by one that is not known.

    A key of the same name in another table comes first, then those of the same table.

    Parameters
    ----------
    key : str
    known : collection of str
        Dotted names; not empty.

    Examples
    --------
    >>> known = ["name", "targets", "training", "training.rounds", "training.learning_rate"]
    >>> closest_key("rounds", known), closest_key("training.lr", known)
    ('training.rounds', 'training.learning_rate')
    >>> closest_key("trainig", known), closest_key("learning_rates", known)
    ('training', 'training.learning_rate')
    """
    table, _, name = key.rpartition(".")
    by_name: dict[str, list[str]] = {}
    beside: dict[str, list[str]] = {}
    for one in known:
        of_one, _, last = one.rpartition(".")
        by_name.setdefault(last, []).append(one)
        if table and of_one == table:
            beside.setdefault(last, []).append(one)
    names = by_name if name in by_name or not beside else beside
    last = difflib.get_close_matches(name, names, n=1, cutoff=0.0)[0]
    return difflib.get_close_matches(key, names[last], n=1, cutoff=0.0)[0]


Model = TypeVar("Model", bound=Section)


def read_toml(path: Path) -> dict[str, Any]:
    """Read a TOML file.

    Raises
    ------
    ConfigurationError
        If the file is missing, is no regular file, is too large, is not UTF-8 or is not TOML;
        names the line.
    """
    try:
        text = _content(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigurationError(
            f"{path}: not UTF-8 at byte {error.start}; save it as UTF-8"
        ) from error
    return parse_toml(text, str(path))


def parse_toml(text: str, source: str) -> dict[str, Any]:
    """Read TOML from a text.

    Raises
    ------
    ConfigurationError
        If it is not TOML; names the source and the line.
    """
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        # besides its own error, tomllib lets through those of endless numbers and of deep lists
        raise ConfigurationError(f"{source}: not valid TOML: {error}") from error


def _content(path: Path) -> bytes:
    try:
        status = path.stat()
        # to open a named pipe would wait for ever
        if not stat.S_ISREG(status.st_mode):
            raise ConfigurationError(f"{path}: not a regular file; put the TOML file itself there")
        if status.st_size > MAX_BYTES:
            raise ConfigurationError(
                f"{path}: has {status.st_size} bytes, over 1 MiB; name a TOML file"
            )
        return path.read_bytes()
    except OSError as error:
        raise ConfigurationError(f"{path}: cannot be read ({error.strerror})") from error


def parse(model: type[Model], data: Mapping[str, Any], source: str) -> Model:
    """Check `data` against `model`; every wrong field is named with what was found there.

    Examples
    --------
    >>> class Imaging(Section):
    ...     tile_px: int = 224
    >>> parse(Imaging, {"tile_pix": 3}, "federation.toml")
    Traceback (most recent call last):
    ...
    common.errors.ConfigurationError: federation.toml: unknown key 'tile_pix'; the closest known \
key is 'tile_px'
    """
    try:
        return model.model_validate(data)
    except ValidationError as error:
        lines = [_describe(detail) for detail in error.errors(include_url=False)]
        raise ConfigurationError("\n".join(f"{source}: {line}" for line in lines)) from None


def _describe(detail: Any) -> str:
    where = ".".join(str(part) for part in detail["loc"])
    message = detail["msg"].removeprefix("Value error, ")
    if detail["type"] == "value_error":
        return f"{where}: {message}" if where else message
    if detail["type"] == "missing":
        return f"{where}: this key is missing"
    return f"{where}: {message}, found {_shown(detail['input'])}"


def _shown(value: Any) -> str:
    try:
        text = repr(value)
    except ValueError:
        # Python does not write integers of more than 4300 digits, which TOML has in hexadecimal
        return "an endless number"
    return text if len(text) <= 200 else text[:200] + "..."


def override(data: dict[str, Any], assignments: list[str]) -> dict[str, Any]:
    """Apply assignments such as ``training.learning_rate=3e-4`` to a nested dictionary.

    The value is read as TOML; what is not TOML is taken as a string.

    Examples
    --------
    >>> override({"training": {"rounds": 40}}, ["training.rounds=5", "training.strategy=median"])
    {'training': {'rounds': 5, 'strategy': 'median'}}
    """
    result = {key: dict(value) if isinstance(value, dict) else value for key, value in data.items()}
    for assignment in assignments:
        dotted, equals, text = assignment.partition("=")
        if not equals or not dotted.strip():
            raise ConfigurationError(
                f"--set {assignment}: write KEY=VALUE, for example training.rounds=10"
            )
        *tables, key = dotted.strip().split(".")
        table = result
        for name in tables:
            table = table.setdefault(name, {})
            if not isinstance(table, dict):
                raise ConfigurationError(f"--set {assignment}: {name!r} is not a table")
        table[key] = _toml_value(text.strip())
    return result


def _toml_value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except (ValueError, RecursionError):
        return text
