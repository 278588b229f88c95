"""Sizes of vertebrae, discs, canal and cord of a mean adult, by level.

Rounded means of published morphometry (Panjabi et al., Spine 1991 and 1992, for vertebrae; Frostell et al., Front
Neurol 2016, for the cord), with distances between neighbouring discs as in adult templates.
"""

from __future__ import annotations

# Body width, depth and height, and the distance to the next body at the rim (disc and both endplates), mm.
BODY: dict[str, tuple[float, float, float, float]] = {
    "C1": (18.0, 12.0, 12.0, 0.0),
    "C2": (17.0, 15.5, 20.0, 4.6),
    "C3": (17.0, 15.5, 12.6, 4.8),
    "C4": (17.5, 15.7, 12.5, 4.9),
    "C5": (18.3, 16.0, 12.3, 5.0),
    "C6": (20.0, 16.6, 12.4, 5.0),
    "C7": (23.0, 17.2, 13.6, 4.7),
    "T1": (26.0, 17.6, 15.8, 4.2),
    "T2": (26.0, 18.8, 17.8, 3.9),
    "T3": (25.5, 20.5, 18.6, 3.8),
    "T4": (26.5, 22.9, 19.4, 3.9),
    "T5": (27.0, 24.4, 20.0, 4.1),
    "T6": (28.6, 26.0, 20.6, 4.4),
    "T7": (29.6, 27.6, 21.0, 4.7),
    "T8": (31.2, 29.1, 21.6, 5.0),
    "T9": (32.8, 30.2, 22.0, 5.3),
    "T10": (34.3, 30.9, 23.2, 5.8),
    "T11": (36.9, 31.4, 24.4, 6.4),
    "T12": (40.0, 32.0, 25.4, 7.2),
    "L1": (41.0, 31.5, 26.0, 7.6),
    "L2": (42.5, 32.5, 26.8, 8.4),
    "L3": (44.5, 33.5, 27.0, 8.9),
    "L4": (46.5, 34.0, 26.8, 9.5),
    "L5": (48.5, 34.5, 26.2, 9.1),
    "S1": (50.0, 31.0, 27.0, 0.0),
    "S2": (37.0, 21.0, 23.0, 0.0),
    "S3": (29.0, 15.0, 19.0, 0.0),
    "S4": (24.0, 11.0, 16.0, 0.0),
    "S5": (19.0, 9.0, 14.0, 0.0),
    "Co1": (13.0, 8.0, 11.0, 0.0),
    "Co2": (9.0, 7.0, 10.0, 0.0),
    "Co3": (7.0, 6.0, 9.0, 0.0),
}


# Bony canal width and depth, cord width and depth, mm; levels between are interpolated.
CANAL: dict[str, tuple[float, float]] = {
    "C1": (25.0, 18.0), "C2": (23.0, 16.0), "C3": (22.5, 14.0), "C5": (23.5, 13.8), "C7": (22.5, 14.0),
    "T1": (20.5, 14.2), "T3": (17.3, 13.6), "T6": (16.6, 13.6), "T9": (17.2, 13.8), "T11": (19.0, 15.0),
    "T12": (21.0, 15.8), "L1": (22.0, 16.2), "L3": (23.0, 15.8), "L4": (23.5, 15.8), "L5": (25.0, 16.2),
    "S1": (26.0, 15.0), "S2": (17.0, 9.0), "S3": (9.0, 5.0),
}  # fmt: skip


# Dural sac: width, depth, and distance of its front behind the rim of the bodies, mm. Lumbar values as in the manual
# masks of SPIDER (docs/definitions.md). The back walls of thoracic and lumbar bodies are hollow, so that a negative
# distance leaves 1 to 2 mm to the wall.
SAC: dict[str, tuple[float, float, float]] = {
    "C1": (21.0, 15.0, 0.7), "C2": (19.5, 13.8, 0.7), "C3": (18.8, 12.6, 0.7), "C5": (19.6, 12.4, 0.7),
    "C7": (18.6, 12.5, 0.5), "T1": (16.8, 12.8, -0.2), "T3": (14.8, 12.7, -0.5), "T6": (14.2, 12.7, -0.5),
    "T9": (14.8, 12.9, -0.5), "T11": (16.6, 13.4, -0.8), "T12": (19.4, 14.6, -0.9), "L1": (21.4, 15.0, -0.9),
    "L2": (21.0, 14.0, -0.8), "L3": (20.0, 12.8, -0.6), "L4": (19.4, 12.2, 0.1), "L5": (17.4, 11.6, 1.4),
    "S1": (12.5, 8.5, 3.5), "S2": (5.0, 3.6, 3.0),
}  # fmt: skip


CORD: dict[str, tuple[float, float]] = {
    "C1": (11.8, 8.8), "C2": (11.8, 8.3), "C3": (12.3, 8.0), "C5": (13.4, 7.6), "C7": (12.2, 7.2),
    "T1": (10.6, 6.9), "T3": (9.0, 6.4), "T6": (8.4, 6.2), "T9": (8.6, 6.4), "T11": (9.4, 7.2), "T12": (9.2, 7.2),
}  # fmt: skip


SACRAL = ("S1", "S2", "S3", "S4", "S5", "Co1", "Co2", "Co3")
