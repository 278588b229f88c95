"""Point lists of 3D Slicer.

Source: markups schema 1.0.3 of 3D Slicer (Modules/Loadable/Markups/Resources/Schema).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any, Final

SCHEMA: Final = (
    "https://raw.githubusercontent.com/slicer/slicer/master/Modules/Loadable/Markups/Resources/Schema/"
    "markups-schema-v1.0.3.json#"
)
#: Points are at the positions that scanner coordinates (RAS+) have in the system of DICOM.
_TO_LPS: Final = (-1.0, -1.0, 1.0)
_AXES: Final = [-1.0, -0.0, -0.0, -0.0, -1.0, -0.0, 0.0, 0.0, 1.0]


def make_markups(points: Iterable[tuple[str, Sequence[float]]], description: str) -> str:
    """Return the text of a ``.mrk.json`` file of named points in LPS coordinates, mm.

    Parameters
    ----------
    points : iterable of (str, sequence of 3 float)
        Name and position in scanner space (RAS+, mm) of each point.
    description : str
        Meaning of the points.

    Examples
    --------
    >>> content = json.loads(make_markups([("C2-C3", (1.0, 2.0, 3.0))], "Disc levels"))
    >>> content["markups"][0]["coordinateSystem"], content["markups"][0]["controlPoints"][0]["position"]
    ('LPS', [-1.0, -2.0, 3.0])
    """
    controls: list[dict[str, Any]] = [
        {
            "id": str(number),
            "label": name,
            "description": "",
            "associatedNodeID": "",
            "position": [round(sign * value, 3) + 0.0 for sign, value in zip(_TO_LPS, position, strict=True)],
            "orientation": _AXES,
            "selected": True,
            "locked": False,
            "visibility": True,
            "positionStatus": "defined",
        }
        for number, (name, position) in enumerate(points, start=1)
    ]
    markup = {
        "type": "Fiducial",
        "description": description,
        "coordinateSystem": "LPS",
        "coordinateUnits": "mm",
        "locked": False,
        "labelFormat": "%N-%d",
        "controlPoints": controls,
    }
    return json.dumps({"@schema": SCHEMA, "markups": [markup]}, indent=2) + "\n"
