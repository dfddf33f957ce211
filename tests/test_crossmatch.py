"""Candidates against known lenses: loops over all pairs, hand positions and astropy."""

import math

import numpy as np
import pandas as pd
import pytest
from astropy.table import Table
from matplotlib import image

from cast_lens import candidates, crossmatch, selection_figures
from cast_lens.text_tables import CatalogError

LENSCAT = """name,RA [deg],DEC [deg],zlens,type,grading,ref
J0011-0845,2.83435,-8.7643,-,galaxy,confident,https://a.example
HE0047-1756,12.6158,-17.6693,0.407,galaxy,probable,https://a.example
,10.5,20.25,0.45?,cluster,probable,
"""


def at(*positions):
    ra, dec = zip(*positions)
    return pd.DataFrame({"object_id": [f"c{k}" for k in range(len(ra))], "ra": ra, "dec": dec})


def lenses(*positions):
    ra, dec = zip(*positions)
    names = [f"k{k}" for k in range(len(ra))]
    return pd.DataFrame(
        {"name": names, "ra": ra, "dec": dec, "grade": "A", "type": "galaxy", "zlens": "0.5"}
    )


def separation(a, b):
    """Haversine, arcsec."""
    ra, dec, ra2, dec2 = map(math.radians, (*a, *b))
    half = math.sin((dec2 - dec) / 2) ** 2
    half += math.cos(dec) * math.cos(dec2) * math.sin((ra2 - ra) / 2) ** 2
    return math.degrees(2 * math.asin(math.sqrt(half))) * 3600


def loop(candidates_, known, radius):
    """Take the closest free pair again and again, over all pairs."""
    left = {(i, j): separation(a, b)
            for i, a in enumerate(zip(candidates_["ra"], candidates_["dec"]))
            for j, b in enumerate(zip(known["ra"], known["dec"]))}  # fmt: skip
    found = {}
    while left:
        (i, j), closest = min(left.items(), key=lambda item: item[1])
        if closest > radius:
            break
        found[i] = (j, closest)
        left = {pair: value for pair, value in left.items() if i != pair[0] and j != pair[1]}
    return found


@pytest.mark.parametrize(("ra", "dec"), [(150, 2), (0, -30), (0, 90), (200, -90), (359.999, 60)])
def test_pairs_are_those_of_a_loop_across_ra_0_and_at_the_poles(ra, dec):
    rng = np.random.default_rng(0)

    def cloud(n):
        d = np.clip(dec + rng.uniform(-0.003, 0.003, n), -90, 90)
        width = 0.003 / max(math.cos(math.radians(dec)), 1e-4)
        return list(zip((ra + rng.uniform(-width, width, n)) % 360, d))

    own, known = at(*cloud(25)), lenses(*cloud(15))
    matched, counts = crossmatch.match(own, known, radius=3)
    expected = loop(own, known, 3)
    assert 3 < len(expected) == counts.n_matched
    assert np.flatnonzero(matched["known"]).tolist() == sorted(expected)
    for i, (j, distance) in expected.items():
        assert matched["known_name"][i] == f"k{j}"
        assert matched["known_separation_arcsec"][i] == pytest.approx(distance, abs=1e-5)
    rest = matched[matched["known"] == 0]
    assert (rest["known_name"] == "").all() and rest["known_separation_arcsec"].isna().all()


def test_pair_across_ra_0_by_hand():
    matched, _ = crossmatch.match(at((359.9999, 0)), lenses((0.0001, 0)), radius=1)
    assert matched["known_separation_arcsec"][0] == pytest.approx(0.72)
    matched, _ = crossmatch.match(at((-0.0001, 0)), lenses((359.9999, 0)), radius=1)
    assert matched["known_separation_arcsec"][0] == pytest.approx(0, abs=1e-6)


def test_where_several_match_the_nearest_is_taken_one_to_one():
    arcsec = 1 / 3600
    own = at((10, 0), (10 + 2 * arcsec, 0), (10 + 9 * arcsec, 0))
    known = lenses((10 + 1.5 * arcsec, 0), (10 + 2.9 * arcsec, 0), (10 + 3.5 * arcsec, 0))
    matched, counts = crossmatch.match(own, known, radius=2)
    # c1-k0 is the closest; c0 is also within 2" of k0, which is taken; k1 and k2 stay beside c1.
    assert matched["known_name"].tolist() == ["", "k0", ""]
    assert (counts.n_matched, counts.n_ambiguous, counts.n_beside) == (1, 1, 2)
    lines = " ".join(crossmatch.summary(matched, counts))
    assert "one to one, the closest pair first" in lines
    assert "1 pairs had a choice within the radius; 2 known lenses are left beside" in lines


def test_equally_close_candidates_go_by_rank():
    matched, _ = crossmatch.match(at((10, 0), (10, 0)), lenses((10, 0)), radius=1)
    assert matched["known"].tolist() == [1, 0]


def test_without_coordinates_nothing_is_matched_and_all_are_counted():
    own = at((10, 0), (np.nan, 0), (10, np.nan), (np.nan, np.nan))
    known = lenses((10, 0), (np.nan, np.nan))
    matched, counts = crossmatch.match(own, known, radius=1)
    assert matched["known"].tolist() == [1, 0, 0, 0]
    assert (counts.n_candidates, counts.n_without_position) == (4, 3)
    assert (counts.n_known, counts.n_known_without_position) == (2, 1)
    assert "3 candidates and 1 known lenses have no coordinates" in crossmatch.summary(
        matched, counts
    )[-1]  # fmt: skip
    for one, two in ((own[1:], known), (own, known[1:])):
        matched, counts = crossmatch.match(one, two, radius=1)
        assert not matched["known"].any()
        assert (counts.n_matched, counts.n_in_footprint, counts.expected_by_chance) == (0, 0, 0)


def test_footprint_is_near_a_candidate():
    known = lenses((10, 0), (10, 0.02), (10, 0.5))  # 0, 72 and 1800 arcsec away
    _, counts = crossmatch.match(at((10, 0)), known, radius=1, footprint=100)
    assert (counts.n_matched, counts.n_in_footprint, counts.n_known) == (1, 2, 3)


def test_chance_pairs_are_the_density_times_the_area_though_all_are_known():
    rng = np.random.default_rng(1)
    own = at(*zip(rng.uniform(9.75, 10.25, 3000), rng.uniform(-0.25, 0.25, 3000)))
    known = lenses(*zip(own["ra"][:400], own["dec"][:400]))
    _, counts = crossmatch.match(own, known, radius=5)
    assert counts.n_matched == 400 and counts.shift_arcsec == 100
    density = 3000 / 1800**2  # arcsec^-2
    expected = 400 * (1 - math.exp(-density * math.pi * 25))  # one or more candidates there
    assert counts.expected_by_chance == pytest.approx(expected, rel=0.25)
    assert abs(counts.expected_by_chance - expected) < 6 * counts.expected_error + 3


@pytest.mark.parametrize(
    "options", [{"radius": 0}, {"radius": math.nan}, {"radius": -1}, {"radius": 2, "shift": 4}]
)
def test_radius_and_shift_that_make_no_sense_are_refused(options):
    with pytest.raises(ValueError, match="more than"):
        crossmatch.match(at((1, 1)), lenses((1, 1)), **options)


def test_table_of_lenscat_is_read(tmp_path):
    (tmp_path / "catalog.csv").write_text(LENSCAT)
    known = crossmatch.read_known(tmp_path / "catalog.csv")
    assert known.iloc[1].tolist() == [
        "HE0047-1756", 12.6158, -17.6693, "probable", "galaxy", "0.407",
    ]  # fmt: skip
    assert known["zlens"].tolist() == ["-", "0.407", "0.45?"]
    matched, _ = crossmatch.match(at((10.5, 20.25), (2.83435, -8.7643)), known, radius=1)
    assert matched["known_grade"].tolist() == ["probable", "confident"]
    assert matched["known_type"].tolist() == ["cluster", "galaxy"]


def test_known_lenses_are_read_from_fits(tmp_path):
    table = Table({"name": ["a"], "RA": [1.5], "DEC": [-2.5], "zlens": [0.5]})
    table.write(tmp_path / "k.fits")
    known = crossmatch.read_known(tmp_path / "k.fits")
    assert known.iloc[0].tolist() == ["a", 1.5, -2.5, "", "", "0.5"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name,RA,DEC\na,361,0\n", "found ra 361.0 of 'a', expected degrees from -180 to 360"),
        ("name,RA,DEC\na,1,-90.1\n", "found dec -90.1"),
        ("name,RA,DEC\na,00:01:02,0\n", "line 2, column 'RA'"),
        ("name,x,DEC\na,1,0\n", "found no column 'RA .deg.' or 'RA'.* among name, x, DEC"),
    ],
)
def test_known_lenses_that_cannot_be_used_say_where(tmp_path, text, message):
    (tmp_path / "k.csv").write_text(text)
    with pytest.raises(CatalogError, match=message):
        crossmatch.read_known(tmp_path / "k.csv")


def ranked():
    return pd.DataFrame(
        {"object_id": ["=b", "00123"], "ra": [10.0, np.nan], "dec": [5.0, np.nan],
         "score": [0.9, 0.1], "logit": [2.0, -2.0], "probability": np.nan, "spread": np.nan,
         "rank": [1, 2], "flags": "", "weights": "w"}
    )  # fmt: skip


def test_folder_of_candidates_and_other_tables_are_read(tmp_path):
    candidates.write(tmp_path / "c", ranked(), {"network": "n"})
    for path in (tmp_path / "c", tmp_path / "c/candidates.csv", tmp_path / "c/candidates.fits"):
        table = crossmatch.read_candidates(path)
        assert table["object_id"].tolist() == ["=b", "00123"] and table["rank"].tolist() == [1, 2]
    (tmp_path / "own.csv").write_text("id_str,ra,dec,more\n00123,1,2,x\n7,,,\n")
    table = crossmatch.read_candidates(tmp_path / "own.csv")
    assert table["object_id"].tolist() == ["00123", "7"] and table["ra"][0] == 1
    assert math.isnan(table["ra"][1])


def test_matched_table_is_written_with_units_and_nothing_a_spreadsheet_runs(tmp_path):
    known = lenses((10, 5)).assign(name="=cmd()", grade="b\u00e9")
    matched, counts = crossmatch.match(ranked(), known, radius=1)
    crossmatch.write(matched, tmp_path / "m.csv")
    text = pd.read_csv(tmp_path / "m.csv", dtype=str, keep_default_na=False)
    assert text["known_name"].tolist() == ["'=cmd()", ""]
    assert text["object_id"].tolist() == ["'=b", "00123"]
    assert text["known"].tolist() == ["1", "0"] and text["known_separation_arcsec"][1] == ""
    crossmatch.write(matched, tmp_path / "m.fits")
    table = Table.read(tmp_path / "m.fits")
    assert [str(table[name].unit) for name in ("ra", "known_separation_arcsec")] == [
        "deg", "arcsec",
    ]  # fmt: skip
    assert table["known_grade"][0] == "b\u00e9" and table["object_id"][1] == "00123"
    assert "1 of the 1 are among the first 1" in " ".join(
        crossmatch.summary(matched, counts, top=1)
    )


def test_figure_of_separations_is_drawn(tmp_path):
    rng = np.random.default_rng(2)
    own = at(*zip(rng.uniform(10, 10.5, 300), rng.uniform(0, 0.5, 300)))
    known = lenses(*zip(own["ra"][:60] + rng.normal(0, 2e-4, 60), own["dec"][:60]))
    matched, counts = crossmatch.match(own, known, radius=3)
    selection_figures.separations(matched, counts, tmp_path / "s.png", title="stand-in")
    assert image.imread(tmp_path / "s.png")[..., :3].std() > 0.05
