import numpy as np
import pytest

from totalspineseg_bids.measurement.norms import parse_age, parse_norms, parse_sex


def score(norms, measure, level, value, *, sex, age):
    """Z-score of one value; None where no norm fits."""
    ages = np.array([np.nan if age is None else age])
    z = norms.z(measure, level, np.array([value]), sex=np.array([sex], object), age=ages)[0]
    return None if np.isnan(z) else z


BASE = {"measure": "height", "level": "L4", "mean": "27", "sd": "2"}


def test_the_narrowest_norm_that_fits_counts():
    norms = parse_norms(
        [
            BASE,
            {**BASE, "sex": "F", "mean": "26"},
            {**BASE, "sex": "F", "age_min": "60", "age_max": "n/a", "mean": "25"},
            {**BASE, "sex": "F", "age_min": "60", "age_max": "70", "mean": "24", "sd": "1"},
        ]
    )
    z = {
        (sex, age): score(norms, "height-mm", "L4", 25.0, sex=sex, age=age)
        for sex in ("M", "F", None)
        for age in (30.0, 65.0, 80.0, None)
    }
    assert z["M", 65.0] == z[None, None] == z[None, 80.0] == -1.0
    assert z["F", 30.0] == z["F", None] == -0.5
    assert z["F", 65.0] == 1.0
    assert z["F", 80.0] == 0.0
    assert score(norms, "height-mm", "L5", 25.0, sex=None, age=None) is None
    assert score(norms, "depth-mm", "L4", 25.0, sex=None, age=None) is None


def test_without_age_only_norms_for_all_ages_fit():
    norms = parse_norms([{**BASE, "age_min": "20", "age_max": "90"}])
    assert score(norms, "height-mm", "L4", 27.0, sex="M", age=None) is None
    assert score(norms, "height-mm", "L4", 29.0, sex="M", age=89.9) == 1.0
    assert score(norms, "height-mm", "L4", 29.0, sex="M", age=90.0) is None


def test_names_with_and_without_unit_and_angles():
    norms = parse_norms([{**BASE, "measure": "height-mm"}, {**BASE, "measure": "lumbar-lordosis", "level": "n/a"}])
    assert set(norms.entries) == {("height-mm", "L4"), ("lumbar-lordosis-deg", "")}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"measure": "weight"}, "line 2: no measure is called 'weight'"),
        ({"level": "l4"}, "line 2: no level is called 'l4'"),
        ({"sd": "0"}, "line 2: sd must be above 0"),
        ({"mean": "tall"}, "line 2: mean must be a number, not 'tall'"),
        ({"mean": "inf"}, "finite"),
        ({"sex": "x"}, "sex must be M, F or n/a, not 'x'"),
        ({"age_min": "old"}, "age_min"),
    ],
)
def test_what_is_wrong_is_said_with_its_line(change, said):
    with pytest.raises(ValueError, match=said):
        parse_norms([{**BASE, **change}])


def test_missing_column():
    with pytest.raises(ValueError, match="no column sd"):
        parse_norms([{k: v for k, v in BASE.items() if k != "sd"}])


def test_people():
    assert [parse_sex(t) for t in ("M", "male", " f", "Female", "n/a", "")] == ["M", "M", "F", "F", None, None]
    assert [parse_age(t) for t in ("34", "89+", "n/a", "nan", "")] == [34.0, 89.0, None, None, None]
