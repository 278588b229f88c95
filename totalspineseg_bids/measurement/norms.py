"""Reference values: z-scores of measures by level, age and sex."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from totalspineseg_bids.anatomy import DISC_LEVELS, VERTEBRA_LEVELS
from totalspineseg_bids.columns import short_name
from totalspineseg_bids.imaging.centerline import Vector
from totalspineseg_bids.measurement.levels import COLUMNS
from totalspineseg_bids.measurement.posture import POSTURE_COLUMNS

#: Columns that a table of reference values must have; the others are optional.
REQUIRED: Final = ("measure", "level", "mean", "sd")
OPTIONAL: Final = ("sex", "age_min", "age_max")
_ABSENT: Final = frozenset({"", "n/a", "na", "nan", "any", "all"})


@dataclass(frozen=True, slots=True)
class Norm:
    """Mean and standard deviation of a measure in a population."""

    mean: float
    """Mean, in the unit of the measure."""
    sd: float
    """Standard deviation, in the unit of the measure."""
    sex: str | None = None
    """``"M"`` or ``"F"``; ``None`` for both."""
    age_min: float = -math.inf
    """Lowest age, years; -inf without a limit."""
    age_max: float = math.inf
    """Upper limit of the age, years, excluded; inf without a limit."""

    @property
    def has_ages(self) -> bool:
        """Return whether the norm is limited to a range of ages."""
        return math.isfinite(self.age_min) or math.isfinite(self.age_max)

    def fits(self, sex: NDArray[np.object_], age: Vector) -> NDArray[np.bool_]:
        """Return which persons the norm applies to; not those whose required sex or age is unknown.

        Parameters
        ----------
        sex : ndarray of object
            ``"M"``, ``"F"`` or ``None``, shape (N,).
        age : Vector
            Years, shape (N,); NaN where unknown.
        """
        fits = np.full(len(age), True) if self.sex is None else np.asarray(sex == self.sex, bool)
        return fits & (age >= self.age_min) & (age < self.age_max) if self.has_ages else fits


@dataclass(frozen=True, slots=True)
class Norms:
    """Reference values by measure and level."""

    entries: Mapping[tuple[str, str], tuple[Norm, ...]]
    """(column of `levels.COLUMNS` or of `posture.POSTURE_COLUMNS`, level) -> norms; the level of an angle is ``""``."""

    def levels_of(self, measure: str) -> list[str]:
        """Return the levels at which a measure has reference values."""
        return [level for name, level in self.entries if name == measure]

    def z(self, measure: str, level: str, values: Vector, *, sex: NDArray[np.object_], age: Vector) -> Vector:
        """Compute distances from the mean in standard deviations.

        Of several applicable norms, the one for the sex of the person and the narrowest range of ages is used.

        Parameters
        ----------
        measure, level : str
            Column and level.
        values : Vector
            Values in the unit of the measure, shape (N,).
        sex : ndarray of object
            Sex of the persons, see `Norm.fits`.
        age : Vector
            Age of the persons, years, see `Norm.fits`.

        Returns
        -------
        ndarray
            z-scores, shape (N,); NaN if no norm applies.
        """
        scores = np.full(len(values), np.nan)
        norms = self.entries.get((measure, level), ())
        best_first = sorted(norms, key=lambda norm: (norm.sex is None, not norm.has_ages, norm.age_max - norm.age_min))
        for norm in reversed(best_first):
            scores = np.where(norm.fits(sex, age), (values - norm.mean) / norm.sd, scores)
        return scores


def parse_norms(rows: Iterable[Mapping[str, str]]) -> Norms:
    """Read reference values from the rows of a table.

    Parameters
    ----------
    rows : iterable of mapping of str to str
        Columns of `REQUIRED` and, optionally, of `OPTIONAL`. A measure may be named with or without its unit
        (``height-mm`` or ``height``); the level of an angle of the whole spine is ``n/a``.

    Raises
    ------
    ValueError
        If a column is missing or a row is invalid; the message contains the line of the table.
    """
    entries: dict[tuple[str, str], list[Norm]] = {}
    columns = {short_name(name): name for name in (*COLUMNS, *POSTURE_COLUMNS)}
    for line, row in enumerate(rows, start=2):
        missing = [name for name in REQUIRED if name not in row]
        if missing:
            msg = f"no column {', '.join(missing)}; it needs {', '.join(REQUIRED)}"
            raise ValueError(msg)
        measure = columns.get(short_name(row["measure"].strip()))
        if measure is None:
            msg = f"line {line}: no measure is called '{row['measure']}'; see group_measures.json for the names"
            raise ValueError(msg)
        level = "" if _absent(row["level"]) else row["level"].strip()
        if level and level not in (*VERTEBRA_LEVELS, *DISC_LEVELS):
            msg = f"line {line}: no level is called '{level}'; levels are written like L4, L4-L5, or n/a for an angle"
            raise ValueError(msg)
        mean, sd = _number(row["mean"], line, "mean"), _number(row["sd"], line, "sd")
        if sd <= 0:
            msg = f"line {line}: sd must be above 0, not {row['sd']}"
            raise ValueError(msg)
        low, high = row.get("age_min", ""), row.get("age_max", "")
        norm = Norm(
            mean,
            sd,
            parse_sex(row.get("sex", "")),
            -math.inf if _absent(low) else _number(low, line, "age_min"),
            math.inf if _absent(high) else _number(high, line, "age_max"),
        )
        if norm.sex is None and not _absent(row.get("sex", "")):
            msg = f"line {line}: sex must be M, F or n/a, not '{row['sex']}'"
            raise ValueError(msg)
        entries.setdefault((measure, level), []).append(norm)
    return Norms({key: tuple(norms) for key, norms in entries.items()})


def parse_sex(text: str) -> str | None:
    """Parse the sex in a participants table (BIDS: M, m, male, F, f, female) as ``"M"`` or ``"F"``."""
    word = text.strip().lower()
    return "M" if word in {"m", "male"} else "F" if word in {"f", "female"} else None


def parse_age(text: str) -> float | None:
    """Parse an age in years; ``None`` if the cell holds no number. BIDS limits ages to ``89+``."""
    try:
        age = float(text.strip().removesuffix("+"))
    except ValueError:
        return None
    return age if math.isfinite(age) else None


def _absent(text: str) -> bool:
    return text.strip().lower() in _ABSENT


def _number(text: str, line: int, name: str) -> float:
    try:
        value = float(text)
    except ValueError as error:
        msg = f"line {line}: {name} must be a number, not '{text}'"
        raise ValueError(msg) from error
    if not math.isfinite(value):
        msg = f"line {line}: {name} must be finite, not '{text}'"
        raise ValueError(msg)
    return value
