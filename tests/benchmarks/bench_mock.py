"""How fast the stand-in surveys are made, beside lenstronomy's own image simulation.

Objects a second of one process, with truth, noise and files in memory. The comparison renders the
same II SGLC objects, without neighbors, stars, truth and noise, by lenstronomy's SimAPI in four
bands at three times supersampling. Run by hand: python -m tests.benchmarks.bench_mock.
"""

import time
from dataclasses import replace

import numpy as np
from lenstronomy.SimulationAPI.sim_api import SimAPI
from lenstronomy.Util.param_util import phi_q2_ellipticity

from cast_lens.mock import deeplense, objects, render
from cast_lens.mock.sglc1 import Sglc1Ground, Sglc1Space
from cast_lens.mock.sglc2 import Sglc2

N, REPEATS = 20, 5
MAKERS = (
    Sglc2(0), Sglc1Space(0), Sglc1Ground(0), deeplense.DeepLense1(0), deeplense.DeepLense2(0),
)  # fmt: skip


def rows():
    """Return objects a second of each survey and the ratio to lenstronomy, as rows of numbers."""
    found = []
    for maker in MAKERS:
        maker.make(0)
        rates = [N / _seconds(maker.make, repeat) for repeat in range(REPEATS)]
        found.append(_row(f"mock_{maker.survey}_objects_per_second", rates, "objects/s"))
    ours, theirs = [], []
    scenes = [objects._draw(MAKERS[0].setup, 0, k) for k in range(N * REPEATS)]
    _render_with_lenstronomy(scenes[0])
    for repeat in range(REPEATS):  # in turn, so that other load meets both
        ours.append(_seconds(lambda k: _render(scenes[k]), repeat))
        theirs.append(_seconds(lambda k: _render_with_lenstronomy(scenes[k]), repeat))
    ratios = [slow / quick for slow, quick in zip(theirs, ours)]
    return [*found, _row("mock_lenstronomy_supersampled_over_ours", ratios, "ratio")]


def _seconds(work, repeat):
    start = time.process_time()
    for k in range(repeat * N, (repeat + 1) * N):
        work(k)
    return time.process_time() - start


def _row(name, values, unit):
    middle = {"value": float(np.median(values)), "low": min(values), "high": max(values)}
    return {"name": name, "unit": unit, "values": values} | middle


def _render(scene):
    setup, lens = MAKERS[0].setup, scene.field.lens
    alone = replace(scene.field, neighbors=(), stars=())
    light, _ = objects._lens_light(setup, alone)
    parts = [part.moved(*scene.place, 0.0) for part in scene.source.parts]
    faintest = 0.01 * setup.bands[0].sigma / 0.1**2 / scene.flux[0]
    lensed = render.lensed(parts, lens, setup.frame, faintest=faintest)
    light += np.array(scene.flux, dtype=np.float32)[:, None, None] * lensed
    return [render.expose(i, setup.frame, band) for i, band in zip(light, setup.bands)]


def _render_with_lenstronomy(scene):
    setup = MAKERS[0].setup
    lens_arguments = render.lens_model(scene.field.lens)[1]
    images = []
    for number, band in enumerate(setup.bands):
        values = {
            "pixel_scale": band.pixel_scale, "exposure_time": band.exposure_time,
            "magnitude_zero_point": 0.0, "read_noise": band.read_noise,
            "sky_brightness": band.sky, "num_exposures": 1, "seeing": band.fwhm,
            "psf_type": "GAUSSIAN", "ccd_gain": 1.0,
        }  # fmt: skip
        light, source = scene.field.lens_light, scene.source.parts
        api = SimAPI(
            num_pix=200 if number == 0 else 66,
            kwargs_single_band=values,
            kwargs_model={
                "lens_model_list": ["SIE", "NFW", "SHEAR"],
                "lens_light_model_list": ["SERSIC_ELLIPSE"] * len(light),
                "source_light_model_list": ["SERSIC_ELLIPSE"] * len(source),
            },
        )
        model = api.image_model_class({"supersampling_factor": 3})
        images.append(
            model.image(
                lens_arguments,
                [_arguments(part, 1.0) for part in source],
                [_arguments(part, part.flux[number]) for part in light],
            )
        )
    return images


def _arguments(part, flux):
    e1, e2 = phi_q2_ellipticity(part.angle, part.q)
    return {
        "amp": flux, "R_sersic": part.radius, "n_sersic": part.n, "e1": e1, "e2": e2,
        "center_x": part.x, "center_y": part.y,
    }  # fmt: skip


if __name__ == "__main__":
    from tests.benchmarks.__main__ import shown

    print(shown(rows()))
