"""The grading page holds what the images hold and nothing that runs; labels come back exactly."""

import base64
import hashlib
import html.parser
import io
import json
import os
import re
import subprocess
import sys
import time
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from astropy.io import fits
from astropy.stats import mad_std
from astropy.visualization import (
    AsinhStretch,
    LinearStretch,
    LogStretch,
    ManualInterval,
    SqrtStretch,
    make_lupton_rgb,
)
from PIL import Image

from cast_lens import grading, scores
from cast_lens import images as images_module
from cast_lens.text_tables import CatalogError

EVIL = [
    "</script><script>window.hit=1</script>",
    "=cmd|' /C calc'!A0",
    '"quoted", \'id\' & <b>bold</b> &amp;',
    "+1", "-2", "@SUM(1)", "'=x", "00123", "1e5", "<!--", "]]>", "{{ 7*7 }}", "%s \\u003c \\",
    "J1148+1930 \u00e9t\u00e9 \u94f6\u6cb3 \U0001f52d",
]  # fmt: skip
STRETCHES = {
    "linear": (LinearStretch(), 1, 99),
    "asinh": (AsinhStretch(0.1), 25, 99.95),
    "sqrt": (SqrtStretch(), 25, 99.8),
    "log": (LogStretch(300), 25, 99.95),
}


def survey(ids, bands, side, broken=(), flags=""):
    """Images of noise with a source, as `images.find` describes them, and their reader."""
    table = pd.DataFrame({"object_id": pd.Series(ids, dtype=object)})
    images = SimpleNamespace(table=table, source="a survey")

    def read_native(images, position):
        if position in broken:
            raise ValueError("<b>file.fits</b>: truncated")
        rng = np.random.default_rng(position)
        y, x = np.mgrid[:side, :side] - side // 2
        source = 40 * np.exp(-((x - 3) ** 2 + (y - 5) ** 2) / 18)
        pixels = {
            band: ((rng.standard_normal((side, side)) + (1 + b) * source) * 1e-12).astype("f4")
            for b, band in enumerate(bands)
        }
        return {band: (image, 0.2) for band, image in pixels.items()}, flags

    return images, read_native


@pytest.fixture(autouse=True)
def real_reader_afterwards(monkeypatch):
    """Undo what `make_page` puts in the place of the reader of images."""
    monkeypatch.setitem(sys.modules, "cast_lens.images", images_module)


def candidates(ids, **columns):
    n = len(ids)
    table = {
        "object_id": pd.Series(ids, dtype=object),
        "ra": np.linspace(0, 359, n), "dec": np.linspace(-60, 60, n),
        "score": np.linspace(0.9, 0.1, n), "logit": np.linspace(3, -3, n),
        "probability": np.linspace(0.8, 0.05, n), "spread": np.nan,
        "rank": np.arange(1, n + 1), "flags": "", "weights": "0" * 12,
    }  # fmt: skip
    return pd.DataFrame({**table, **columns})


def make_page(folder, ids, *, name="page.html", bands=("VIS",), side=21, flags="", broken=(),
              **options):  # fmt: skip
    images, reader = survey(ids, bands, side, broken)
    sys.modules["cast_lens.images"] = SimpleNamespace(read_native=reader)
    grading.grade(candidates(ids, flags=flags), images, folder / name, **options)
    return folder / name


def image_of(png):
    """Pixels of a PNG in base64, the first row that of the file, as Pillow reads them."""
    return np.array(Image.open(io.BytesIO(base64.b64decode(png))))


class Page(html.parser.HTMLParser):
    """Tags, attributes, and the text of scripts of a page."""

    def __init__(self):
        super().__init__()
        self.tags, self.attributes, self.scripts, self.inside = [], [], [], None

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += attributes
        self.inside = dict(attributes) if tag in ("script", "style") else None
        if self.inside is not None:
            self.scripts.append([tag, self.inside, ""])

    def handle_endtag(self, tag):
        self.inside = None

    def handle_data(self, data):
        if self.inside is not None:
            self.scripts[-1][2] += data


def parse(path):
    page = Page()
    page.feed(path.read_text(encoding="ascii"))
    return page


def read_back(path):
    """What the page holds: its table and the block of each candidate."""
    data = [text for _, attributes, text in parse(path).scripts if "id" in attributes]
    about, *blocks = map(json.loads, data)
    return about, blocks


def test_page_loads_nothing_and_its_policy_allows_its_own_code_alone(tmp_path):
    page = parse(make_page(tmp_path, EVIL, bands=("R", "I", "G")))
    names = [name for name, _ in page.attributes]
    assert not {"src", "href", "action", "srcset", "poster", "data"} & set(names)
    assert not [name for name in names if name.startswith("on") or name == "style"]
    policy = next(v for n, v in page.attributes if n == "content" and "default-src" in v)
    code = {kind: text for kind, attributes, text in page.scripts if not attributes}
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    for kind, text in code.items():
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert rules.pop(f"{kind}-src") == f"'sha256-{digest}'"
    assert rules == {
        "default-src": "'none'", "img-src": "data:", "base-uri": "'none'", "form-action": "'none'",
    }  # fmt: skip


def test_hostile_ids_are_data_and_make_no_tag(tmp_path):
    plain = parse(make_page(tmp_path, [f"id{k}" for k in range(len(EVIL))]))
    hostile = make_page(tmp_path, EVIL, flags=EVIL, broken={1})
    assert parse(hostile).tags == plain.tags
    about, blocks = read_back(hostile)
    assert [row["id"] for row in about["rows"]] == EVIL
    assert len(blocks) == len(EVIL) and about["rows"][1]["problem"].endswith("truncated")
    assert [dict(row["facts"])["flags"] for row in about["rows"]] == [
        " ".join(filter(None, flag.split(";"))) for flag in EVIL
    ]


def test_truth_labels_are_not_on_the_page(tmp_path):
    images, reader = survey(["1", "2"], ("VIS",), 21)
    sys.modules["cast_lens.images"] = SimpleNamespace(read_native=reader)
    pages = []
    for labels in ([0, 1], [1, 0]):
        grading.grade(candidates(["1", "2"], label=labels), images, tmp_path / "page.html")
        pages.append((tmp_path / "page.html").read_bytes())
    assert pages[0] == pages[1]


@pytest.mark.parametrize("name", STRETCHES)
def test_stamp_is_astropys_stretch_to_a_fourth_of_the_noise(name):
    rng = np.random.default_rng(0)
    image = (rng.standard_normal((40, 30)) * 2e-12 + 1e-12).astype(np.float32)
    image[10:14, 5:8] += 6e-10
    stamp = grading._stamp("VIS", image, 0.1, [name])
    gray = np.frombuffer(base64.b64decode(stamp["tables"][0]), np.uint8)
    shown = gray[image_of(stamp["png"])][::-1]  # first row of the file at the bottom
    # Within one level of what astropy makes of the image moved by the rounding of the pixels.
    noise, sky = mad_std(image), np.median(image)
    move = np.hypot(noise / 8, (image - sky) / 32) * 1.01
    whole = image.astype(float)
    white = sky + 10 * noise
    lower, upper = (by_astropy(name, whole, whole + sign * move, white) for sign in (-1, 1))
    assert (shown >= lower - 1).all() and (shown <= upper + 1).all()
    assert stamp["size"] == "3.0\u2033 wide"


def test_levels_of_a_stamp_are_at_most_a_fourth_of_the_noise_apart():
    image = np.random.default_rng(0).standard_normal((50, 50)) * 3.0
    levels = image_of(grading._stamp("VIS", image, None, ["linear"])["png"])[::-1]
    for level in np.unique(levels):
        same = image[levels == level]
        # asinh makes steps wider away from the sky: by cosh, at 4 noise levels by 1.4
        assert np.ptp(same) <= mad_std(image) / 4 * np.hypot(1, np.abs(same / 3).max() / 4) * 1.05


@pytest.mark.parametrize("name", STRETCHES)
def test_a_mask_value_left_in_the_image_is_white_and_hides_nothing_else(name):
    """As in band U of object 100008 of the I SGLC, where 212 of 10,201 pixels are 100."""
    image = np.random.default_rng(0).standard_normal((101, 101)) * 1e-12
    image[50:54, 50:54] += 1e-11
    image[:2, :] = 100
    stamp = grading._stamp("U", image, 0.2, [name])
    gray = np.frombuffer(base64.b64decode(stamp["tables"][0]), np.uint8)
    shown = gray[image_of(stamp["png"])][::-1]
    assert (shown[:2] == 255).all()
    # The others as astropy draws them without the mask, moved by half a level. 254 levels reach
    # from the lowest pixel to 10^7 noise levels.
    sky, noise, rest = np.median(image), mad_std(image), image[2:]
    lowest = np.arcsinh((rest.min() - sky) / noise / 4)
    move = np.hypot(4 * noise, rest - sky) * (np.arcsinh(1e7 / 4) - lowest) / 254 / 2 * 1.05
    white = sky + 10 * noise
    lower, upper = (by_astropy(name, rest, rest + sign * move, white) for sign in (-1, 1))
    assert (shown[2:] >= lower - 1).all() and (shown[2:] <= upper + 1).all()


def by_astropy(name, image, moved, white):
    """Gray of moved pixels with the limits of the image; `white` is the least that is white."""
    stretch, *percentiles = STRETCHES[name]
    low, high = np.percentile(image, percentiles)
    if name != "linear":
        high = max(high, white)
    return np.rint(255 * stretch(ManualInterval(low, high)(moved)))


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((5, 4)),
        np.full((5, 4), 1e30),
        np.full((5, 4), np.nan),
        np.where(np.eye(5) > 0, np.inf, 1.0),
        np.where(np.eye(5) > 0, 1e38, 0.0),
        np.where(np.eye(5) > 0, np.nan, np.arange(5.0)),
        np.array([[3.0]]),
        np.zeros((5, 4), ">f4"),
    ],
)
@pytest.mark.filterwarnings("error")
def test_odd_images_give_a_stamp(image):
    stamp = grading._stamp("VIS", image, None, list(STRETCHES))
    levels = image_of(stamp["png"])[::-1]
    assert levels.shape == image.shape
    assert ((levels == 0) == ~np.isfinite(image)).all()
    found = {band: (image, None) for band in "IRG"}
    assert grading._composite(found, list("IRG"), dict.fromkeys("IRG", 1.0))


def test_composite_is_astropys_lupton_image_to_its_256_colors(tmp_path):
    images, reader = survey(["1"], ("R", "I", "G", "U"), 41)
    sys.modules["cast_lens.images"] = SimpleNamespace(read_native=reader)
    grading.grade(candidates(["1"]), images, tmp_path / "page.html")
    about, (block,) = read_back(tmp_path / "page.html")
    assert about["colors"] == ["I", "R", "G"]
    found, _ = reader(images, 0)
    channels = []
    for band in "IRG":
        image = found[band][0].astype(float)
        channels.append(image - np.median(image))
        channels[-1] /= np.percentile(channels[-1], 99.5)
    noise = mad_std(np.mean(channels, axis=0))
    expected = make_lupton_rgb(*channels, minimum=-noise, stretch=9 * noise, Q=8)
    shown = np.array(Image.open(io.BytesIO(base64.b64decode(block["color"]))).convert("RGB"))
    difference = np.abs(shown[::-1].astype(int) - expected)
    assert difference.mean() < 4 and difference.max() < 64  # 256 colors of 1,681 pixels


@pytest.mark.parametrize(
    ("bands", "colors"),
    [
        (("VIS",), None),
        (("R", "I"), None),
        (("U", "G", "R", "I"), ["I", "R", "G"]),
        (("VIS", "Y", "J", "H"), ["H", "J", "Y"]),
        (("g", "r", "i", "z"), ["z", "i", "r"]),
        (("red", "green", "blue"), None),
    ],
)
def test_colors_are_the_three_reddest_known_bands(tmp_path, bands, colors):
    about, (block,) = read_back(make_page(tmp_path, ["1"], bands=bands))
    assert about["colors"] == colors and bool(block["color"]) == bool(colors)


def test_colors_may_be_named(tmp_path):
    page = make_page(tmp_path, ["1"], bands=("a", "b", "c"), colors=("c", "a", "b"))
    about, (block,) = read_back(page)
    assert about["colors"] == ["c", "a", "b"] and block["color"]
    with pytest.raises(grading.GradingError, match="found 'd', expected some of a, b, c"):
        make_page(tmp_path, ["1"], bands=("a", "b", "c"), colors=("a", "b", "d"))
    with pytest.raises(grading.GradingError, match="three bands"):
        make_page(tmp_path, ["1"], bands=("a", "b", "c"), colors=("a", "b"))


def test_rank_range_is_what_is_shown(tmp_path):
    ids = [f"id{k}" for k in range(1, 31)]
    images, reader = survey(ids[::-1], ("VIS",), 9)
    sys.modules["cast_lens.images"] = SimpleNamespace(read_native=reader)
    shuffled = candidates(ids).sample(frac=1, random_state=0)
    for first, n, expected in ((1, None, ids), (5, 3, ids[4:7]), (29, 9, ids[28:])):
        made = grading.grade(shuffled, images, tmp_path / "p.html", first=first, n=n)
        about, _ = read_back(tmp_path / "p.html")
        assert [row["id"] for row in about["rows"]] == expected
        assert (made.n, made.size) == (len(expected), (tmp_path / "p.html").stat().st_size)
        assert [dict(row["facts"])["rank"] for row in about["rows"]] == [n[2:] for n in expected]


def test_each_candidate_has_its_own_image(tmp_path):
    ids = ["a", "b", "c"]
    images, reader = survey(ids[::-1], ("VIS",), 15)
    sys.modules["cast_lens.images"] = SimpleNamespace(read_native=reader)
    grading.grade(candidates(ids), images, tmp_path / "p.html")
    for k, block in enumerate(read_back(tmp_path / "p.html")[1]):
        levels = image_of(block["stamps"][0]["png"])[::-1]
        pixels = reader(images, 2 - k)[0]["VIS"][0]
        assert levels.ravel()[np.argmax(pixels)] == levels.max()
        order = np.argsort(pixels.ravel())
        assert (np.diff(levels.ravel()[order].astype(int)) >= 0).all()


def test_facts_are_rounded_not_guessed(tmp_path):
    table = candidates(["1", "2"], probability=[0.98765, np.nan], ra=[10.1234567, np.nan])
    table["spread"] = [0.04321, np.nan]
    table["flags"] = ["padded;constant", ""]
    images, reader = survey(["1", "2"], ("VIS",), 9, flags="padded;nan_filled")
    sys.modules["cast_lens.images"] = SimpleNamespace(read_native=reader)
    grading.grade(table, images, tmp_path / "p.html")
    first, second = (row["facts"] for row in read_back(tmp_path / "p.html")[0]["rows"])
    assert first == [
        ["rank", "1"], ["probability", "0.988"], ["spread", "0.043"], ["score", "0.90000"],
        ["RA, Dec (deg)", "10.123457 -60.000000"], ["flags", "padded constant nan_filled"],
    ]  # fmt: skip
    assert second == [
        ["rank", "2"], ["score", "0.10000"], ["probability", "not calibrated"],
        ["flags", "padded nan_filled"],
    ]  # fmt: skip


def test_an_unreadable_or_missing_image_costs_its_stamps_alone(tmp_path):
    whole = read_back(make_page(tmp_path, ["a", "b", "c"]))[1]
    about, blocks = read_back(make_page(tmp_path, ["a", "b", "c"], broken={1}))
    assert [bool(row["problem"]) for row in about["rows"]] == [False, True, False]
    assert blocks[1] == {"stamps": [], "color": None}
    assert blocks[0] == whole[0] and blocks[2] == whole[2]
    with pytest.raises(ValueError, match="truncated"):
        make_page(tmp_path, ["a", "b"], broken={1}, strict=True)
    images, reader = survey(["a"], ("VIS",), 9)
    sys.modules["cast_lens.images"] = SimpleNamespace(read_native=reader)
    made = grading.grade(candidates(["a", "b"]), images, tmp_path / "p.html")
    assert (made.n, made.n_without_image) == (2, 1)
    with pytest.raises(grading.GradingError, match="no image of a candidate"):
        grading.grade(candidates(["a", "b"]), images, tmp_path / "p.html", strict=True)


@pytest.mark.parametrize(
    ("ids", "options", "message"),
    [
        (["a", "b"], {"broken": {0, 1}}, "a survey: the image cannot be read.* of a, nor of any"),
        (["a", "a"], {}, "object_id a is there twice"),
        ([" "], {}, "expected visible text"),
        (["a\nb"], {}, "expected visible text"),
        (["a\u202eb"], {}, "expected visible text"),
        (["\ud800"], {}, "expected visible text"),
        ([7], {}, "expected visible text"),
        (["a"], {"first": 2}, "found 1 candidates, none of rank 2"),
        (["a"], {"first": 0}, "whole numbers from 1"),
        (["a"], {"n": 0}, "whole numbers from 1"),
        (["a"], {"stretches": ["cube"]}, "found 'cube', expected some of linear, asinh, sqrt, log"),
        (["a"], {"stretches": []}, "found \\[\\]"),
        (["a"], {"stretches": ["log", "log"]}, "each once"),
    ],
)
def test_what_cannot_be_graded_leaves_no_page(tmp_path, ids, options, message):
    with pytest.raises(grading.GradingError, match=message):
        make_page(tmp_path, ids, **options)
    assert not list(tmp_path.iterdir())


def test_a_page_beyond_the_budget_is_written_with_a_warning(tmp_path, monkeypatch):
    monkeypatch.setattr(grading, "BUDGET", 50_000)
    with pytest.warns(UserWarning, match=r"0 MB, more than the 0 MB .*first="):
        assert make_page(tmp_path, ["a", "b"], side=200).is_file()


def test_side_shows_the_central_pixels(tmp_path):
    whole = image_of(read_back(make_page(tmp_path, ["a"], side=21))[1][0]["stamps"][0]["png"])
    images, reader = survey(["a"], ("VIS",), 21)
    sys.modules["cast_lens.images"] = SimpleNamespace(read_native=reader)
    grading.grade(candidates(["a"]), images, tmp_path / "p.html", side=11)
    part = image_of(read_back(tmp_path / "p.html")[1][0]["stamps"][0]["png"])
    assert part.shape == (11, 11) and whole.shape == (21, 21)
    order = np.argsort(whole[5:16, 5:16].ravel(), kind="stable")
    assert (np.diff(part.ravel()[order].astype(int)) >= -1).all()


def test_files_on_disk_become_stamps_of_their_pixels(tmp_path):
    """No stand-in: from FITS files through `images.find` to the page."""
    ids = ["007", "7", "b"]
    (tmp_path / "cuts").mkdir()
    for k, name in enumerate(ids):
        pixels = np.random.default_rng(k).standard_normal((12, 17)).astype(np.float32)
        pixels[2, 3 + k] = 100
        fits.PrimaryHDU(pixels).writeto(tmp_path / f"cuts/{name}.fits")
    found = images_module.find(tmp_path / "cuts")
    grading.grade(candidates(ids[::-1]), found, tmp_path / "p.html")
    about, blocks = read_back(tmp_path / "p.html")
    for row, block in zip(about["rows"], blocks, strict=True):
        levels = image_of(block["stamps"][0]["png"])[::-1]
        peak = np.unravel_index(levels.argmax(), levels.shape)
        assert levels.shape == (12, 17) and peak == (2, 3 + ids.index(row["id"]))
        assert block["stamps"][0]["size"] == "17 \u00d7 12 pixels"


def test_real_cutouts_become_stamps_of_20_arcsec(real_data, tmp_path):
    found = images_module.find(real_data / "sglc1/ground_based")
    made = grading.grade(candidates(list(found.table["object_id"])), found, tmp_path / "p.html")
    about, blocks = read_back(tmp_path / "p.html")
    assert (made.n, made.n_without_image) == (6, 0) and about["colors"] == ["I", "R", "G"]
    assert {s["size"] for block in blocks for s in block["stamps"]} == {"20.2\u2033 wide"}
    # Four bands of 101 x 101 pixels: a thousand candidates stay within the budget.
    assert sum(len(json.dumps(block)) for block in blocks) / made.n * 1000 < grading.BUDGET


CODE = """
import sys, pathlib
sys.path.insert(0, {root!r})
from tests.test_grading import make_page
make_page(pathlib.Path({folder!r}), ["1", "\u00fc"], bands=("R", "I", "G"))
"""


@pytest.mark.slow
def test_page_has_the_same_bytes_in_any_locale_zone_folder_and_umask(tmp_path, root):
    folder = tmp_path / "a b \u00e9"
    folder.mkdir()
    environment = {**os.environ, "LC_ALL": "tr_TR.UTF-8", "TZ": "Asia/Kathmandu"}
    code = CODE.format(root=str(root), folder=str(folder))
    subprocess.run([sys.executable, "-X", "utf8", "-c", code], env=environment, check=True,
                   umask=0o077, capture_output=True)  # fmt: skip
    here = make_page(tmp_path, ["1", "\u00fc"], bands=("R", "I", "G"))
    assert (folder / "page.html").read_bytes() == here.read_bytes()


def write(path, text, encoding="utf-8"):
    path.write_bytes(text.encode(encoding))
    return path


def test_labels_come_back_as_they_were_exported(tmp_path):
    rows = [(scores.escape_cell(name), *"ABCX"[k % 4]) for k, name in enumerate(EVIL)]
    told = {"A": "1", "B": "1", "C": "", "X": "0"}
    quoted = [
        ",".join('"' + cell.replace('"', '""') + '"' for cell in (name, g, told[g], "Ann", "t"))
        for name, g in rows
    ]
    text = "\n".join(["object_id,grade,label,grader,time", *quoted]) + "\n"
    for version in (text, "\ufeff" + text.replace("\n", "\r\n")):
        labels = grading.read_labels(write(tmp_path / "l.csv", version))
        assert list(labels) == ["object_id", "label", "grade"]
        assert labels["object_id"].tolist() == EVIL
        assert labels["grade"].tolist() == [g for _, g in rows]
        assert labels["label"].dtype == "Int64"
        assert labels["label"].isna().tolist() == [g == "C" for _, g in rows]
        assert labels["label"].fillna(7).tolist() == [int(told[g] or 7) for _, g in rows]


def test_a_plain_table_of_labels_is_read_too(tmp_path):
    labels = grading.read_labels(write(tmp_path / "few.csv", "label,object_id\n1,00123\n0,1e5\n"))
    assert labels["object_id"].tolist() == ["00123", "1e5"]
    assert labels["label"].tolist() == [1, 0] and labels["grade"].tolist() == ["", ""]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("object_id,grade,label\n1,A,1\n2,D,1\n", "line 3, column 'grade': found 'D'"),
        ("object_id,grade,label\n1,A,1\n2,,\n", "line 3, column 'grade': found ''"),
        ("object_id,grade,label\n1,A,0\n", "line 2, column 'label': found '0', expected 1"),
        ("object_id,grade,label\n1,C,0\n", "line 2, column 'label': .* no label for grade C"),
        ("object_id,grade,label\n1,X,\n", "line 2, column 'label': found ''"),
        ("object_id,grade,label\n1,A,1\n\n1,X,0\n", "line 4, column 'object_id': .*line 2"),
        ("object_id,label\n1,A\n", "line 2, column 'label': found 'A'"),
        ("object_id,label\n1,\n", "line 2, column 'label': found ''"),
        ("object_id;label\n1;1\n", "column 'object_id': found no such column"),
        ("object_id,grade\n1,A\n", "column 'label': found no such column"),
        ("object_id,label\n1,1,1\n", "line 2: found 3 fields"),
        ("object_id,label\n", "line 2: found no objects"),
        ('object_id,label\n"1,1\n', "line 2: found a row that does not end"),
    ],
)
def test_a_bad_label_file_is_refused_naming_the_line(tmp_path, text, message):
    with pytest.raises(CatalogError, match=message) as caught:
        grading.read_labels(write(tmp_path / "l.csv", text))
    assert str(tmp_path / "l.csv") in str(caught.value) and "\n" not in str(caught.value)


def test_grades_of_the_page_are_those_of_the_library(root):
    text = (root / "cast_lens/templates/grade.html").read_text(encoding="ascii")
    (told,) = re.findall(r"LABEL = (\{.*?\})", text)
    told = json.loads(re.sub(r"(\w): ", r'"\1": ', told))
    assert told == {g: "" if v is None else str(v) for g, v in grading.GRADES.items()}


def test_a_stamp_costs_milliseconds():
    image = np.random.default_rng(0).standard_normal((101, 101))
    start = time.perf_counter()
    for _ in range(10):
        grading._stamp("VIS", image, None, list(STRETCHES))
    assert (time.perf_counter() - start) / 10 < 0.5  # 5 ms on an idle core
