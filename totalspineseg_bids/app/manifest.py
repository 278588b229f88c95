"""Manifest of a run: the state of each image and the files that belong to it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from totalspineseg_bids.app.participant import Tally
from totalspineseg_bids.bids.names import DerivativeNames, SourceImage
from totalspineseg_bids.bids.publish import output_files
from totalspineseg_bids.bids.sidecar import format_json
from totalspineseg_bids.files import read_json, sha256_of
from totalspineseg_bids.imaging.atomic import write_text


def write_manifest(path: Path, output: Path, resolution: str | None, tally: Tally) -> None:
    """Write the images of a participant-level run with their output files as JSON.

    Files that this run wrote have their SHA-256; those that were complete before are listed without.

    Parameters
    ----------
    path : Path
        JSON file.
    output : Path
        Output folder.
    resolution : str or None
        ``res-`` entity of the label image whose sidecar marks an image as complete.
    tally : Tally
        Outcomes of the run.

    Raises
    ------
    OSError
        If the manifest cannot be written.
    """
    images = [
        *(_entry(source, "done", output, resolution, digests=True) for source in tally.done),
        *(_entry(source, "complete before", output, resolution, digests=False) for source in tally.skipped),
        *({"Source": f.source.uri, "State": "failed", "Reason": f.reason, "Outputs": []} for f in tally.failures),
    ]
    content = {"Summary": tally.summary(), "Images": sorted(images, key=lambda image: str(image["Source"]))}
    write_text(path, format_json(content))


def _entry(source: SourceImage, state: str, output: Path, resolution: str | None, *, digests: bool) -> dict[str, Any]:
    main = DerivativeNames.of(source).labels(".json", resolution)
    sidecar = read_json(output / main) or {}
    files: list[dict[str, Any]] = []
    for name in (*output_files(sidecar), main):
        file = output / name
        if file.is_file():
            files.append(
                {"Path": name, "Bytes": file.stat().st_size} | ({"SHA256": sha256_of(file)} if digests else {})
            )
    return {"Source": source.uri, "State": state, "Status": sidecar.get("Status"), "Outputs": files}
