import hashlib
import subprocess
from pathlib import Path

import numpy as np

from tests.models.conftest import server

__all__ = ["server"]


def git(cwd: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=t", "-c", "user.email=t@localhost", "-c", "init.defaultBranch=main"]
    command = ["git", *identity, *arguments]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=True)
    return done.stdout


def key_for(content: bytes) -> str:
    return f"SHA256E-s{len(content)}--{hashlib.sha256(content).hexdigest()}.nii.gz"


def content_of(name: str) -> bytes:
    return np.random.default_rng(len(name) + sum(name.encode())).bytes(3000)


#: Files of a small repository, as spine-generic names them; the last three are not for training.
WANTED = (
    "sub-a/anat/sub-a_T1w.nii.gz",
    "sub-a/anat/sub-a_T2w.nii.gz",
    "sub-b/anat/sub-b_T2star.nii.gz",
    "derivatives/labels/sub-a/anat/sub-a_T2w_label-spine_dseg.nii.gz",
    "derivatives/labels/sub-a/anat/sub-a_T2w_label-SC_seg.nii.gz",
)
OTHERS = (
    "sub-a/dwi/sub-a_dwi.nii.gz",
    "derivatives/labels/sub-a/anat/sub-a_T2w_label-rootlets_dseg.nii.gz",
    "derivatives/data_preprocessed/sub-a/anat/sub-a_T2w.nii.gz",
)
