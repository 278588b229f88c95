"""Names of a real neck under changes that leave its anatomy as it is."""

from totalspineseg_bids.imaging.io import read_image
from totalspineseg_bids.models.registry import resolve
from totalspineseg_bids.segmentation.pipeline import SpineSegmenter


def test_no_crop_of_a_real_neck_gets_other_names_without_a_reason(benchmark, data_dir):
    program = benchmark("names_under_change")
    image = read_image(data_dir / "real_bids" / "sub-neck" / "anat" / "sub-neck_T2w.nii.gz")
    rows = program.compare(image, SpineSegmenter(resolve("bundled"), threads=1), list(program.crops(image)))
    assert [row.name for row in rows] == [f"{low:.0%} to {high:.0%}" for low, high in program.CROPS]
    assert "silent" not in {row.outcome for row in rows}
    assert {row.outcome for row in rows if row.name.endswith("100%")} == {"same"}
