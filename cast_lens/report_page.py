"""The report: one self-contained HTML page, for phone, screen and paper."""

import base64
from pathlib import Path

import jinja2

from cast_lens.drawings import Drawing, png_size
from cast_lens.report_sections import (
    KINDS,
    SHOWN,
    claims_grid,
    counts_grid,
    in_table,
    kind_of,
    numbers_grid,
    origins,
    provenance,
    scored_grid,
    summary,
)
from cast_lens.report_tables import PAPERS
from cast_lens.run_figures import draw_run

PAGE_BYTES = 15_000_000  # ASSUMED: figures of one page; it should still pass as an e-mail
PICTURE_BYTES = 3_000_000  # ASSUMED: one picture should not be a fifth of the page


class Budget:
    """Counts the bytes of figures, and remembers what found no room."""

    def __init__(self, total, one):
        self.total, self.one, self.used, self.left_out = total, one, 0, {}

    def admits(self, name, n_bytes):
        """Return whether a figure may go in: then it is counted, else noted with the reason."""
        why = ""
        if n_bytes > self.one:
            why = f"{n_bytes / 1e6:.1f} MB, more than {self.one / 1e6:g} MB for one figure"
        elif self.used + n_bytes > self.total:
            why = f"no room: the figures of a page may have {self.total / 1e6:g} MB"
        if why:
            self.left_out[name] = why
            return False
        self.used += n_bytes
        return True


def page(compared, judged, figures, title, *, runs=(), skipped=(), about=None, progress=iter):
    """Return one self-contained HTML page with tables and figures; everything is escaped.

    Args:
        compared: Table of `verdicts.compare`.
        judged: Table of `claims.judge_claims`.
        figures: Paths of PNG files that are of no run in `runs`; they are embedded.
        title: Heading of the page.
        runs: RunFolders, each of which gets a section.
        skipped: {path: why a run folder is not in the page}.
        about: {word: text} of the code and the machine of this report; None for none.
        progress: Function that wraps the list of runs, such as tqdm.

    Returns:
        The page as text.
    """
    compared = _with_columns(compared, ["data", "reproduced"])  # of nothing that was run
    judged = _with_columns(judged, ["paper", "claim_id", "data", "verdict"])
    budget = Budget(PAGE_BYTES, PICTURE_BYTES)
    data = kind_of(compared["data"])
    loose = [*embed_pictures(figures, data, budget)]
    sections = [
        (paper, name, summary(own, claims), numbers_grid(own), claims_grid(claims))
        for paper, name in PAPERS.items()
        if len(own := compared[compared["paper"] == paper]) or len(judged[judged["paper"] == paper])
        for claims in (judged[judged["paper"] == paper],)
    ]
    # The curves of all runs come before the pictures of any, should there be too many.
    drawn = [[embed(d, f"{one.path.name}: {d.title}", budget) for d in draw_run(one)]
             for one in progress(runs)]  # fmt: skip
    pictures = [[*embed_pictures(one.pictures, one.data, budget)] for one in runs]
    for one in runs:
        budget.left_out |= {
            f"{one.path.name}: {p.name}": why for p, why in one.bad_pictures.items()
        }
    run_sections = [
        {
            "name": one.path.name,
            "paper": PAPERS[one.paper],
            "data": one.data,
            "provenance": provenance(one),
            "origins": origins(one),
            "in_table": in_table(one, compared),
            "scored": scored_grid(one),
            "drawn": [figure for figure in figures_ if figure],
            "pictures": pictures_,
            "undefined": one.undefined,
        }
        for one, figures_, pictures_ in zip(runs, drawn, pictures)
    ]
    return _environment().get_template("report.html").render(
        title=title, data=kind_of([data, *(one.data for one in runs)]), kinds=KINDS, shown=SHOWN,
        counts=counts_grid(compared, data), sections=sections, loose=loose, runs=run_sections,
        skipped=dict(skipped), left_out=budget.left_out, about=about, used=budget.used,
        limit=budget.total, single=bool((compared["run"] != "").any()),
    )  # fmt: skip


def _with_columns(frame, columns):
    return frame.assign(**{column: "" for column in columns if column not in frame})


def _environment():
    folder = Path(__file__).parent / "templates"
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(folder), autoescape=True, undefined=jinja2.StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip


def embed(drawing, name, budget):
    """Return a drawing for the template, or None if there is no room for it."""
    if not budget.admits(name, len(drawing.content)):
        return None
    data = base64.b64encode(drawing.content).decode()
    return {
        "title": drawing.title, "about": drawing.about, "data": drawing.data,
        "source": f"data:{drawing.media};base64,{data}", "size": drawing.size,
    }  # fmt: skip


def embed_pictures(paths, data, budget):
    """Yield PNG files for the template, as far as there is room.

    Raises:
        RunError: If one is no PNG file.
    """
    for path in map(Path, paths):
        name = f"{path.parent.name}: {path.name}"
        size, title = png_size(path), path.stem.replace("_", " ")
        if path.stat().st_size > budget.one:
            budget.admits(name, path.stat().st_size)
            continue
        figure = embed(Drawing(title, "", data, "image/png", path.read_bytes(), size), name, budget)
        if figure:
            yield figure
