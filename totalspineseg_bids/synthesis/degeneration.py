"""Shapes of endplates and discs: normal variation, degeneration, fractures and fused vertebrae."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from totalspineseg_bids.synthesis.rasterize import FloatArray


@dataclass(frozen=True, slots=True)
class Endplate:
    """Shape of the end of a vertebral body."""

    dome: float = 0.0
    """Depth of the middle below the rim, mm."""
    dents: tuple[tuple[float, float, float, float], ...] = ()
    """Gaussian dents: place right and anterior and width, as fractions of half the width or depth; depth, mm (negative:
    raised). Narrow deep ones are Schmorl's nodes, wide ones fractures and irregularities."""

    @property
    def deepest(self) -> float:
        """Greatest possible depth, mm."""
        return self.dome + sum(max(dent[3], 0.0) for dent in self.dents)

    def depth(self, right: FloatArray, front: FloatArray, radius: NDArray[np.floating]) -> FloatArray:
        """Return the depth (mm) at places given as fractions of half the width and depth.

        Parameters
        ----------
        right, front : FloatArray
            Places, any shape.
        radius : FloatArray
            Distance from the middle, 1 at the rim; same shape.
        """
        depth = np.float32(self.dome) * np.maximum(1.0 - np.square(radius), 0.0)
        for x, y, width, mm in self.dents:
            far = np.square(right - np.float32(x)) + np.square(front - np.float32(y))
            depth = depth + np.float32(mm) * np.exp(-far / np.float32(2 * width**2))
        found: FloatArray = depth.astype(np.float32)
        return found


FLAT = Endplate()


@dataclass(frozen=True, slots=True)
class DiscShape:
    """Shape of a disc beside its height."""

    rim: float = 1.0
    """Size relative to the endplates."""
    front: float = 0.0
    """Bulge beyond the endplates in front, mm."""
    back: float = 0.0
    """Bulge behind, mm."""
    side: float = 0.0
    """Bulge to either side, mm."""
    osteophytes: float = 0.0
    """Length of the osteophytes on both bodies, mm; 0 is none."""
    fused: bool = False
    """Whether bone replaces the disc (block vertebra)."""


def draw_grades(names: list[str], probability: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """Draw the degeneration of the disc below each level; the mobile levels are affected most.

    Parameters
    ----------
    names : list of str
        Levels in craniocaudal order.
    probability : float
        Mean probability that a disc is degenerate.
    rng : numpy.random.Generator
        Source of randomness.

    Returns
    -------
    ndarray of float64, shape (levels,)
        0 (none) to 1 (collapsed).
    """
    prone = np.array([1.5 if name in {"L3", "L4", "L5", "C4", "C5", "C6"} else 0.7 for name in names])
    affected = rng.random(len(names)) < probability * prone
    return np.where(affected, rng.beta(1.6, 1.6, len(names)) * 0.8 + 0.2, 0.0)


def remaining_height(grade: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the height of a disc of a grade, relative to a healthy one."""
    return 1.0 - 0.62 * grade


def draw_disc_shape(region: str, grade: float, scale: float, rng: np.random.Generator) -> DiscShape:
    """Draw the shape of a disc: bulges and osteophytes grow with its degeneration.

    Parameters
    ----------
    region : str
        ``"C"``, ``"T"`` or ``"L"``.
    grade : float
        Degeneration, 0 to 1.
    scale : float
        Size of the subject.
    rng : numpy.random.Generator
        Source of randomness.
    """
    size = scale * {"C": 0.5, "T": 0.6, "L": 1.0}[region]
    spurs = rng.random() < 1.4 * grade - 0.3
    return DiscShape(
        rim=float(np.clip(rng.normal(1.0, 0.02), 0.95, 1.05)),
        front=size * float(rng.uniform(0.0, 0.8) + grade * rng.uniform(0.0, 2.2)),
        back=size
        * float(rng.uniform(-0.6, 0.6) + grade * rng.choice([0.0, 1.0], p=[0.4, 0.6]) * rng.uniform(0.5, 3.5)),
        side=size * float(rng.uniform(-0.5, 0.3) + grade * rng.uniform(0.0, 1.2)),
        osteophytes=size * float(rng.uniform(2.0, 6.0)) if spurs else 0.0,
    )


def draw_endplate(dome: float, height: float, grade: float, rng: np.random.Generator) -> Endplate:
    """Draw an endplate: slightly uneven, more beside a degenerate disc, now and then with a Schmorl's node.

    Parameters
    ----------
    dome : float
        Mean depth of the middle, mm.
    height : float
        Height of the body, mm.
    grade : float
        Degeneration of the disc beside it, 0 to 1.
    rng : numpy.random.Generator
        Source of randomness.
    """
    rough = 0.012 * height * (0.5 + 1.5 * grade)
    dents = []
    for _ in range(3):
        x, y = (float(v) for v in rng.uniform(-0.8, 0.8, 2))
        dents.append((x, y, float(rng.uniform(0.2, 0.5)), float(rng.normal(0.0, rough))))
    if rng.random() < 0.04 + 0.1 * grade:
        x, y = (float(v) for v in rng.uniform(-0.45, 0.45, 2))
        dents.append((x, y, float(rng.uniform(0.12, 0.22)), height * float(rng.uniform(0.1, 0.24))))
    return Endplate(dome * float(rng.uniform(0.5, 1.6)), tuple(dents))


def fracture(plate: Endplate, height: float, rng: np.random.Generator) -> Endplate:
    """Return an endplate depressed by a compression fracture: in front (wedge) or in the middle (biconcave)."""
    front = float(rng.choice([0.9, 0.1]))
    depth = height * float(rng.uniform(0.15, 0.4))
    return Endplate(plate.dome, (*plate.dents, (0.0, front, float(rng.uniform(0.5, 0.8)), depth)))
