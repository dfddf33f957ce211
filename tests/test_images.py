"""Images from any source are the pixels that were written, on the grid a network wants."""

import gzip
import io
import os
from collections import namedtuple
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.table import Table

from cast_lens import cutouts, images, pack, stacks
from cast_lens.fits_image import CutoutError
from cast_lens.text_tables import CatalogError
from tests import fits_files, packs

Branch = namedtuple("Branch", "name bands side pixel_scale")
WCS = {"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CDELT1": -0.2 / 3600, "CDELT2": 0.2 / 3600}


def pixels(*seed, side=6):
    return np.random.default_rng(seed).normal(size=(side, side)).astype(np.float32)


def write(path, image, hdu=fits.PrimaryHDU, **cards):
    path.parent.mkdir(parents=True, exist_ok=True)
    made = hdu(image)
    made.header.update(cards)
    fits.HDUList([made] if hdu is fits.PrimaryHDU else [fits.PrimaryHDU(), made]).writeto(path)
    return path


def only(found, position=0):
    """The one band of an object, its scale, and the flags."""
    native, flags = images.read_native(found, position)
    ((image, scale),) = native.values()
    return image, scale, flags


def test_real_challenge_folder_is_what_cutouts_read(real_data):
    found = images.find(real_data / "sglc1/ground_based", mask_value=100)
    assert (found.kind, found.bands, len(found)) == ("folder", ("R", "I", "G", "U"), 6)
    assert found.n_extra == 1 and found.table["ra"].isna().all()
    for k, row in found.table.iterrows():
        paths = [row[f"path_{band}"] for band in found.bands]
        image, counts = cutouts.read_cutout(paths, mask_value=100)
        native, flags = images.read_native(found, k)
        for n, band in enumerate(found.bands):
            assert native[band][0].tobytes() == image[..., n].tobytes()
            assert native[band][1] == pytest.approx(0.2, rel=1e-6)
        assert ("masked" in flags) == any(counts.n_masked)


def test_real_images_of_the_right_size_are_untouched(real_data):
    found = images.find(real_data / "sglc1/space_based")
    branch = Branch("vis", ("VIS",), 101, 0.1)
    arrays, flags, failed = images.read_for(found, range(len(found)), [branch])
    assert flags == [""] * 8 and not failed
    for k, path in enumerate(found.table["path_VIS"]):
        assert arrays["vis"][k, ..., 0].tobytes() == fits.getdata(path).astype("=f4").tobytes()


def test_files_called_id_and_band(tmp_path):
    for name in ("b", "a_1", "00123"):
        for band in ("g", "r"):
            write(tmp_path / band / f"{name}_{band}.fits", pixels(len(name)), **WCS)
    write(tmp_path / "b_z.fits", pixels(0))
    (tmp_path / "notes.txt").write_text("x")
    found = images.find(tmp_path, bands=["r", "g"])
    assert found.table["object_id"].tolist() == ["00123", "a_1", "b"]
    assert found.bands == ("r", "g") and found.n_extra == 2
    native, _ = images.read_native(found, 1)
    assert np.array_equal(native["g"][0], pixels(3)) and native["g"][1] == pytest.approx(0.2)


def test_files_called_id_have_one_band(tmp_path):
    write(tmp_path / "x_y.fits", pixels(1))
    (tmp_path / "z.fits.gz").write_bytes(gzip.compress(fits_files.encode(pixels(2))))
    found = images.find(tmp_path)
    assert found.bands == ("image",) and found.table["object_id"].tolist() == ["x_y", "z"]
    assert np.array_equal(only(found)[0], pixels(1)) and only(found)[1] is None
    assert np.array_equal(only(found, 1)[0], pixels(2))


@pytest.mark.parametrize("kind", ["named", "in order", "cube"])
def test_file_of_an_object_may_hold_all_its_bands(tmp_path, kind):
    bands, image = ("g", "r", "i"), [pixels(k) for k in range(3)]
    if kind == "cube":
        write(tmp_path / "a.fits", np.stack(image), PIXSCALE=0.3)
    else:
        order = (2, 0, 1) if kind == "named" else (0, 1, 2)
        hdus = [fits.ImageHDU(image[k], name=bands[k].upper() if kind == "named" else f"X{k}")
                for k in order]  # fmt: skip
        for hdu in hdus:
            hdu.header["PIXSCALE"] = 0.3
        fits.HDUList([fits.PrimaryHDU(), *hdus]).writeto(tmp_path / "a.fits")
    for source in (tmp_path, tmp_path / "a.fits"):
        if kind == "in order" and source.is_file():
            continue  # three objects, as far as one can tell
        found = images.find(source, bands=bands)
        assert found.table["object_id"].tolist() == ["a"]
        native, _ = images.read_native(found, 0)
        for band, expected in zip(bands, image):
            assert np.array_equal(native[band][0], expected) and native[band][1] == 0.3


def test_missing_band_in_a_file_of_several_is_told(tmp_path):
    hdus = [fits.PrimaryHDU(), fits.ImageHDU(pixels(0), name="G")]
    fits.HDUList(hdus).writeto(tmp_path / "a.fits")
    found = images.find(tmp_path, bands=("g", "r", "i"))
    with pytest.raises(CutoutError, match=r"a.fits: missing_band: found G \(6, 6\), .*g, r, i"):
        images.read_native(found, 0)


@pytest.mark.parametrize("hdu", [fits.ImageHDU, fits.CompImageHDU])
def test_image_in_an_extension_is_read(tmp_path, hdu):
    image = np.arange(36, dtype=np.int16).reshape(6, 6)
    write(tmp_path / "a.fits.fz", image, hdu, **WCS)
    found = images.find(tmp_path)
    assert found.table["object_id"].tolist() == ["a"]
    assert np.array_equal(only(found)[0], image) and only(found)[1] == pytest.approx(0.2)


@pytest.mark.parametrize("packed", [False, True])
def test_extensions_are_objects(tmp_path, packed):
    hdus = [fits.ImageHDU(pixels(k), name=f"id{k}") for k in range(4)]
    hdus[2] = fits.CompImageHDU((pixels(2) * 1000).astype(np.int32), name="id2")
    hdus[3].header.update(WCS)
    stream = io.BytesIO()
    fits.HDUList([fits.PrimaryHDU(), *hdus]).writeto(stream)
    path = tmp_path / ("many.fits.gz" if packed else "many.fits")
    path.write_bytes(gzip.compress(stream.getvalue()) if packed else stream.getvalue())
    found = images.find(path)
    assert found.kind == "extensions"
    assert found.table["object_id"].tolist() == ["ID0", "ID1", "ID2", "ID3"]
    for k in (3, 0, 1):
        assert np.array_equal(only(found, k)[0], pixels(k))
    assert np.array_equal(only(found, 2)[0], (pixels(2) * 1000).astype(np.int32))
    assert only(found, 3)[1] == pytest.approx(0.2) and only(found, 0)[1] is None


def test_extensions_of_objects_and_bands(tmp_path):
    names = ["a_g", "a_r", "b_r"]
    hdus = [fits.ImageHDU(pixels(k), name=name) for k, name in enumerate(names)]
    fits.HDUList([fits.PrimaryHDU(), *hdus]).writeto(tmp_path / "many.fits")
    found = images.find(tmp_path / "many.fits", bands=("g", "r"))
    assert found.table["object_id"].tolist() == ["A", "B"]
    assert np.array_equal(images.read_native(found, 0)[0]["r"][0], pixels(1))
    with pytest.raises(CutoutError, match="many.fits: missing_band: found no image in band g"):
        images.read_native(found, 1)


@pytest.mark.parametrize(("names", "bands"), [(["a", "a"], None), (["a_z", "a_g"], ("g", "r"))])
def test_extensions_that_do_not_tell_objects_apart_are_refused(tmp_path, names, bands):
    hdus = [fits.ImageHDU(pixels(k), name=name) for k, name in enumerate(names)]
    fits.HDUList([fits.PrimaryHDU(), *hdus]).writeto(tmp_path / "many.fits")
    with pytest.raises(images.ImagesError, match="EXTNAME"):
        images.find(tmp_path / "many.fits", bands=bands)


def test_file_of_three_axes_is_a_stack_of_objects(tmp_path):
    cube = np.stack([pixels(k) for k in range(5)])
    write(tmp_path / "cube.fits", cube, **WCS, WCSAXES=2)
    found = images.find(tmp_path / "cube.fits")
    assert (found.kind, found.table["object_id"].tolist()) == ("stack", list("01234"))
    for k in range(5):
        image, scale, _ = only(found, k)
        assert np.array_equal(image, cube[k]) and scale == pytest.approx(0.2)


def test_own_stack_keeps_its_ids_and_labels(tmp_path):
    cube = np.stack([pixels(k) for k in range(3)])
    catalog = pd.DataFrame({"object_id": ["100", "1e5", "x"], "label": [0, 1, 1]})
    source = SimpleNamespace(catalog=catalog, batch=lambda name, rows: cube[rows][..., None])
    stacks.write_stack(source, np.arange(3), tmp_path / "s.fits", name="x")
    found = images.find(tmp_path / "s.fits")
    labels = dict(zip(found.table["object_id"], found.table["label"]))
    assert labels == {"100": 0, "1e5": 1, "x": 1}
    for k, object_id in enumerate(found.table["object_id"]):
        row = catalog["object_id"].tolist().index(object_id)
        assert np.array_equal(only(found, k)[0], cube[row])


@pytest.mark.parametrize("ending", ["csv", "fits", "parquet"])
@pytest.mark.parametrize("names", [("ra", "dec"), ("RA", "DEC"), ()])
def test_table_names_files_positions_and_labels(tmp_path, ending, names):
    for k in range(3):
        write(tmp_path / f"stamps/{k}.fits", pixels(k))
    table = pd.DataFrame({"id_str": ["00123", "1e5", "x"],
                          "file_loc": [f"stamps/{k}.fits" for k in range(3)],
                          "lens": [0, 1, 0]})  # fmt: skip
    for name in names:
        table[name] = [10.5, 20.25, -3]
    path = tmp_path / f"catalog.{ending}"
    if ending == "fits":
        Table.from_pandas(table).write(path)
    elif ending == "csv":
        table.to_csv(path, index=False)
    else:
        table.to_parquet(path)
    found = images.find(path, label_column="lens")
    assert found.kind == "table" and found.table["object_id"].tolist() == ["00123", "1e5", "x"]
    assert found.table["label"].tolist() == [0, 1, 0]
    if names:
        assert found.table["ra"].tolist() == found.table["dec"].tolist() == [10.5, 20.25, -3]
    else:
        assert found.table[["ra", "dec"]].isna().all(axis=None)
    assert np.array_equal(only(found, 2)[0], pixels(2))


def test_table_may_have_a_column_of_files_for_each_band(tmp_path):
    for band in "gr":
        write(tmp_path / f"{band}.fits", pixels(ord(band)))
    (tmp_path / "t.csv").write_text("id_str,file_g,file_r\nx,g.fits,r.fits\n")
    found = images.find(tmp_path / "t.csv", bands=("r", "g"), path_column="file_{band}")
    native, _ = images.read_native(found, 0)
    assert np.array_equal(native["r"][0], pixels(ord("r")))
    assert np.array_equal(native["g"][0], pixels(ord("g")))


def test_bad_cell_of_a_position_is_not_taken_for_a_missing_column(tmp_path):
    write(tmp_path / "a.fits", pixels(1))
    (tmp_path / "t.csv").write_text("id_str,file_loc,ra,dec\nx,a.fits,12h,3\n")
    with pytest.raises(CatalogError, match="line 2, column 'ra': found '12h'"):
        images.find(tmp_path / "t.csv")


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_pack_gives_its_records(tmp_path, dtype):
    catalog = packs.survey(tmp_path / "survey", 5)
    packs.build(tmp_path / "pack", catalog, dtype=dtype)
    opened = pack.open_pack(tmp_path / "pack")
    found = images.find(tmp_path / "pack")
    assert (found.kind, found.bands) == ("pack", ("VIS", "Y", "J", "H"))
    assert found.table["object_id"].tolist() == opened.catalog["object_id"].tolist()
    assert found.table["label"].tolist() == opened.catalog["label"].tolist()
    native, _ = images.read_native(found, 3)
    assert np.array_equal(native["VIS"][0], opened.batch("vis", [3])[0, ..., 0])
    assert np.array_equal(native["J"][0], opened.batch("nir", [3])[0, ..., 1])
    with pytest.raises(images.ImagesError, match="expected also Z.*--bands"):
        images.find(tmp_path / "pack", bands=("VIS", "Z"))


def test_given_pixel_scale_decides_against_the_header(tmp_path):
    write(tmp_path / "a.fits", pixels(0), **WCS)
    assert only(images.find(tmp_path))[1] == pytest.approx(0.2)
    assert only(images.find(tmp_path, pixel_scale=0.3))[1] == 0.3
    assert only(images.find(tmp_path, pixel_scale={"image": 0.4}))[1] == 0.4
    with pytest.raises(images.ImagesError, match="pixel scales of g; the bands are image"):
        images.find(tmp_path, pixel_scale={"g": 0.4})


def test_oblong_pixels_are_left_out_unless_the_scale_is_given(tmp_path):
    write(tmp_path / "a.fits", pixels(0), **(WCS | {"CDELT1": -0.1 / 3600}))
    with pytest.raises(CutoutError, match="a.fits: scale: .*0.1 by 0.2 arcsec.*--pixel-scale"):
        only(images.find(tmp_path))
    assert only(images.find(tmp_path, pixel_scale=0.2))[1] == 0.2


def test_scale_of_each_file_is_its_own(tmp_path):
    """What is kept of headers seen before must not hang on anything but the scale."""
    scales = [0.1, 0.2, 0.1, 0.25]
    for k, scale in enumerate(scales):
        cards = ["CTYPE1  = 'RA---TAN-SIP'", "CTYPE2  = 'DEC--TAN-SIP'", f"CRVAL1  = {k:20}"]
        cards += [f"CD{i}_{i}   = {scale / 3600:20.12E}" for i in (1, 2)]
        cards = [*fits_files.HEADER[:3], f"NAXIS1  = {6:20}", f"NAXIS2  = {6:20}", *cards]
        (tmp_path / f"{k}.fits").write_bytes(fits_files.by_hand(cards, pixels(k)))
    found = images.find(tmp_path)
    assert [only(found, k)[1] for k in range(4)] == pytest.approx(scales)


def test_unknown_scale_is_the_network_s_only_if_the_side_is(tmp_path):
    write(tmp_path / "a.fits", pixels(0))
    found = images.find(tmp_path)
    arrays, flags, _ = images.read_for(found, [0], [Branch("x", ("g",), 6, 0.1)])
    assert flags == ["scale_assumed"]
    assert arrays["x"][0, ..., 0].tobytes() == pixels(0).tobytes()
    _, _, failed = images.read_for(found, [0], [Branch("x", ("g",), 7, 0.1)])
    assert failed[0].reason == "scale" and "--pixel-scale" in str(failed[0])


def test_branches_are_filled_band_by_band_at_their_own_scale(tmp_path):
    for band in "gri":
        write(tmp_path / f"a_{band}.fits", pixels(ord(band)), **WCS)
    found = images.find(tmp_path, bands=("g", "r", "i"))
    branches = [Branch("one", ("A",), 12, 0.1), Branch("two", ("B", "C"), 8, 0.2)]
    take = {"A": "i", "B": "g", "C": "r"}
    arrays, flags, failed = images.read_for(found, [0, 0], branches, take=take)
    assert not failed and flags == ["resampled;padded"] * 2
    assert arrays["one"].shape == (2, 12, 12, 1) and arrays["two"].shape == (2, 8, 8, 2)
    blocks = np.kron(pixels(ord("i")), np.ones((2, 2))) / 4
    assert arrays["one"][1, ..., 0] == pytest.approx(blocks, abs=1e-7)
    for n, band in enumerate("gr"):
        expected = np.pad(pixels(ord(band)), 1)
        assert arrays["two"][0, ..., n].tobytes() == expected.tobytes()


def test_flags_tell_what_was_done_in_a_fixed_order(tmp_path):
    image = pixels(0)
    image[0, :4] = np.nan, np.inf, 100, 120
    write(tmp_path / "a.fits", image, PIXSCALE=0.3)
    write(tmp_path / "b.fits", np.full((6, 6), 7.5, np.float32), PIXSCALE=0.1)
    data = fits_files.encode(pixels(2), PIXSCALE=0.1)
    (tmp_path / "c.fits").write_bytes(data[: 2880 + 6 * 6 * 4])
    found = images.find(tmp_path, mask_value=100)
    _, flags, failed = images.read_for(found, range(3), [Branch("x", ("g",), 4, 0.1)])
    assert flags == ["nan_filled;masked;resampled;cropped", "constant;cropped",
                     "padding_missing;cropped"]  # fmt: skip
    assert not failed
    assert only(found)[0][0].tolist() == [0, 0, 0, 0, *image[0, 4:]]


BAD = {
    "empty": b"",
    "not_fits": b"<!DOCTYPE html>",
    "truncated": fits_files.encode(pixels(0))[:2900],
    "dtype": fits_files.encode(pixels(0)).replace(b"BITPIX  =                  -32",
                                                  b"BITPIX  =                    7"),
    "shape": fits_files.encode(pixels(0)).replace(b"NAXIS1  =                    6",
                                                  b"NAXIS1  =        9999999999999"),
    "range": fits_files.survey_file((1e-12 * pixels(1, side=20)).byteswap()),
}  # fmt: skip


@pytest.mark.parametrize("reason", [*BAD, "io", "folder", "fifo"])
def test_file_that_is_no_image_costs_its_object_alone(tmp_path, reason):
    names = ["a", "b", "c"]
    for k, name in enumerate(names):
        write(tmp_path / f"{name}.fits", pixels(k), PIXSCALE=0.1)
    table = tmp_path / "t.csv"
    table.write_text("id_str,file_loc\n" + "".join(f"{n},{n}.fits\n" for n in names))
    found, branches = images.find(table), [Branch("x", ("g",), 6, 0.1)]
    before, _, _ = images.read_for(found, range(3), branches)
    path = tmp_path / "b.fits"
    path.unlink()
    if reason == "folder":
        path.mkdir()
    elif reason == "fifo":
        os.mkfifo(path)
    elif reason in BAD:
        path.write_bytes(BAD[reason])
    with fits_files.within(seconds=10):
        arrays, flags, failed = images.read_for(found, range(3), branches)
    assert list(failed) == [1] and str(path) in str(failed[1])
    assert failed[1].reason == (reason if reason in BAD or reason == "io" else "not_fits")
    assert not arrays["x"][1].any() and flags == ["", "", ""]
    assert arrays["x"][[0, 2]].tobytes() == before["x"][[0, 2]].tobytes()


def test_truncated_extension_is_told(tmp_path):
    hdus = [fits.ImageHDU(pixels(k), name=f"n{k}") for k in range(3)]
    fits.HDUList([fits.PrimaryHDU(), *hdus]).writeto(tmp_path / "many.fits")
    found = images.find(tmp_path / "many.fits")
    os.truncate(tmp_path / "many.fits", 5 * 2880)
    with pytest.raises(CutoutError) as caught:
        images.read_native(found, 2)
    assert caught.value.reason == "truncated"
    assert np.array_equal(only(found, 1)[0], pixels(1))


def test_huge_image_in_an_extension_is_refused_before_it_is_read(tmp_path):
    hdu = fits.ImageHDU(np.zeros((2, 2), np.float32), name="big")
    fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(tmp_path / "a.fits")
    data = (tmp_path / "a.fits").read_bytes()
    for axis in (b"NAXIS1  ", b"NAXIS2  "):
        data = data.replace(axis + b"=                    2", axis + b"=               200000")
    (tmp_path / "a.fits").write_bytes(data)
    with pytest.raises(CutoutError) as caught:
        images.read_native(images.find(tmp_path), 0)
    assert caught.value.reason in ("shape", "truncated", "header")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: None, "none ending in .*<id>.fits"),
        (lambda p: (p / "a.txt").write_text("x"), "found 1 files, none ending"),
        (lambda p: [write(p / d / "x.fits", pixels(0)) for d in "ab"], "two images of object"),
        (lambda p: write(p / "a\nb.fits", pixels(0)), "visible text"),
        (lambda p: write(p / " .fits", pixels(0)), "visible text"),
    ],
)
def test_folder_that_tells_no_objects_is_refused(tmp_path, make, message):
    make(tmp_path)
    with pytest.raises(images.ImagesError, match=message):
        images.find(tmp_path)


@pytest.mark.parametrize("name", ["absent", "absent.csv", "absent.fits", "x.doc"])
def test_source_that_is_not_there_is_refused(tmp_path, name):
    with pytest.raises((images.ImagesError, CatalogError), match=name):
        images.find(tmp_path / name)


def test_fingerprint_follows_every_file(tmp_path):
    for name in "ab":
        write(tmp_path / f"{name}.fits", pixels(ord(name)))
    first = images.fingerprint(images.find(tmp_path))
    assert images.fingerprint(images.find(tmp_path)) == first
    assert first["n"] == 2 and first["bytes"] == 2 * 5760
    packs.put(tmp_path / "a.fits", pixels(9))
    second = images.fingerprint(images.find(tmp_path))
    os.rename(tmp_path / "a.fits", tmp_path / "c.fits")
    third = images.fingerprint(images.find(tmp_path))
    assert len({found["sha256"] for found in (first, second, third)}) == 3


def test_folder_names_that_are_no_text_are_read(tmp_path):
    folder = tmp_path / os.fsdecode(b"a b \xe9")
    write(folder / "a.fits", pixels(0))
    assert np.array_equal(only(images.find(folder))[0], pixels(0))


@pytest.mark.parametrize("name", ["survey", "survey.csv", "survey.fits"])
def test_a_path_that_is_not_there_is_told_as_such(tmp_path, name):
    with pytest.raises(images.ImagesError, match=f"{name}: there is nothing of this name"):
        images.find(tmp_path / name)


TAN = {"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRVAL1": 150.25, "CRVAL2": -2.5,
       "CDELT1": -0.1 / 3600, "CDELT2": 0.1 / 3600, "CRPIX1": 3.5, "CRPIX2": 3.5}  # fmt: skip


def test_position_is_that_of_the_middle_pixel_by_the_header(tmp_path):
    write(tmp_path / "a.fits", pixels(1), **TAN)  # 6 pixels: their middle is at 3.5 from 1
    shifted = TAN | {"CRPIX1": 2.5, "CRPIX2": 4.5}  # the middle is a pixel west and one south
    write(tmp_path / "b.fits", pixels(2), **shifted)
    write(tmp_path / "c.fits", pixels(3))
    write(tmp_path / "d.fits", pixels(4), **WCS)  # tells the scale alone
    found = images.find(tmp_path)
    assert images.sky_position(found, 0) == pytest.approx((150.25, -2.5), abs=1e-9)
    step = 0.1 / 3600
    expected = (150.25 - step / np.cos(np.radians(-2.5)), -2.5 - step)
    assert images.sky_position(found, 1) == pytest.approx(expected, abs=1e-8)
    assert np.isnan(images.sky_position(found, 2)).all()
    assert np.isnan(images.sky_position(found, 3)).all()


def test_position_in_galactic_coordinates_is_told_in_icrs(tmp_path):
    cards = TAN | {"CTYPE1": "GLON-TAN", "CTYPE2": "GLAT-TAN", "CRVAL1": 120.0, "CRVAL2": 45.0}
    write(tmp_path / "a.fits", pixels(1), **cards)
    icrs = SkyCoord(120, 45, unit="deg", frame="galactic").icrs
    found = images.sky_position(images.find(tmp_path), 0)
    assert found == pytest.approx((icrs.ra.deg, icrs.dec.deg), abs=1e-9)


def test_position_of_a_table_decides_against_the_header(tmp_path):
    write(tmp_path / "a.fits", pixels(1), **TAN)
    (tmp_path / "t.csv").write_text("id_str,file_loc,ra,dec\na,a.fits,10.5,20.5\n")
    assert images.sky_position(images.find(tmp_path / "t.csv"), 0) == (10.5, 20.5)


def test_file_without_a_readable_image_has_no_position(tmp_path):
    (tmp_path / "a.fits").write_bytes(b"no image")
    write(tmp_path / "b.fits", pixels(2), **TAN)
    assert np.isnan(images.sky_position(images.find(tmp_path), 0)).all()
