"""Scores become metrics, rows of the table, the like-for-like page, and figures."""

from pathlib import Path

import pandas as pd

from cast_lens import report, run, scores
from cast_lens import table as tables
from reproductions.nottingham import data, drawing
from reproductions.nottingham.comparison import compare_pairs, verdict
from reproductions.nottingham.settings import (
    CELLS,
    CHALLENGE_SCORED,
    FURTHER,
    HELD_OUT_LASTRO,
    HIGH_THRESHOLD,
    LEADERBOARD,
    SCALES,
    metrics_at,
)
from reproductions.nottingham.training import numbers_of_history

REPRODUCTIONS = Path(__file__).parents[1]
PAGE = "like_for_like.md"


def write_experiments(found, cell, config, folder):
    """Write what came of a cell as experiments, {name: files}; those of `FURTHER` too.

    Args:
        found: Tables of `training.run_cell`.
        cell: Name of the cell.
        config: Its Config.
        folder: Of the run.
    """
    written = {cell: "test"} | {name: key for name, (of, key) in FURTHER.items() if of == cell}
    for name, key in written.items():
        if key not in found:
            continue
        (folder / name).mkdir(exist_ok=True)
        if name == "efficientnet_b0.early_stopping":
            n_train = found[key]["n_train"].iloc[0]
            extra = numbers_of_history(found["history"], n_train, config.patience)
            _write(extra, folder / name / "extra.csv")
        scores.write_scores(found[key], folder / name / "scores.csv")
    _write(found["history"], folder / cell / "history.csv")
    if "real" in found:
        scores.write_scores(found["real"], folder / cell / "real_cutouts.csv")


def _write(frame, path):
    run.write_whole(path, frame.to_csv(index=False, lineterminator="\n"))


def finish(folder, survey, scale, name, seed):
    """Turn the scores of all trainings into metrics, rows, the page, figures and the table."""
    about = {"paper": "nottingham", "survey": "sglc1_space", "data": survey.kind, "scale": name,
             "software": run.software()}  # fmt: skip
    rows, found, frames = [], {}, {}
    for path in sorted(folder.glob("*/scores.csv")):
        experiment = path.parent.name
        threshold = HIGH_THRESHOLD if experiment.endswith("threshold_high") else 0.5
        frames[experiment] = tables.evaluate(path.parent, metrics_at(threshold))
        found[experiment] = scores.read_scores(path)
        row = _split(experiment, survey, found[experiment])
        rows += tables.summarize_experiment(frames[experiment], experiment=experiment, **row,
                                            **about)  # fmt: skip
    rows += describe(survey, about)
    compared = compare_pairs(found, seed)
    _write(compared, folder / "like_for_like.csv")
    real = {cell: scores.read_scores(folder / cell / "real_cutouts.csv")
            for cell in CELLS if (folder / cell / "real_cutouts.csv").exists()}  # fmt: skip
    text = page(compared, frames, found, real, survey, name)
    run.write_whole(folder / PAGE, text)
    drawing.draw(folder, survey, found, compared, real)
    report.finish_run(folder, REPRODUCTIONS, "nottingham", rows)
    print(text)


def _split(experiment, survey, table):
    """Return the split an experiment was scored on, and its sizes."""
    if FURTHER.get(experiment, ("", ""))[1] == "challenge":
        n = table["object_id"].nunique()
        return {"split": f"stand-in for the challenge test, {n}", "n_train": 0, "n_test": 0}
    split = "planes" if experiment.startswith("planes.") else "order"
    part = {key: len(rows) for key, rows in survey.parts[split].items()}
    title = "lens planes apart" if split == "planes" else "last"
    return {"split": f"{title}, {part['test']}", "n_train": part["train"], "n_test": part["test"]}


def describe(survey, about):
    """Return rows of what Sec. 3.2 says of the data: by the official labels where these are."""
    catalog, part = survey.pack.catalog, survey.parts["order"]
    here = {"data": {
        "image_side_pixels": survey.pack.manifest["arrays"]["vis"]["shape"][0],
        "n_channels": len(survey.pack.inputs["vis"]),
        # Sec. 3.2, par. 3: resized to 224 pixels, three channels of float64
        "gigabytes": len(part["train"]) * 224 * 224 * 3 * 8 / 1e9,
        **{f"shared_planes.{split}": data.shared_planes(survey, split) for split in survey.parts},
    }}  # fmt: skip
    for name, rows in {"labelled": range(len(catalog)), "train": part["train"],
                       "validation": part["test"]}.items():  # fmt: skip
        n_lenses = int(catalog["label"].iloc[rows].sum())
        here[f"data.{name}"] = {
            "n_objects": len(rows), "n_lenses": n_lenses, "n_nonlenses": len(rows) - n_lenses,
        }  # fmt: skip
    kinds, place = {about["data"]: here}, data.real_place()
    if place and about["data"] != "real":
        kinds["real"] = data.official_counts(place, SCALES["paper"])
    return [
        tables.summarize({"all": value}, experiment=experiment, metric=metric, split="all",
                         n_train=0, n_test=0, **(about | {"data": kind}))
        for kind, of_kind in kinds.items()
        for experiment, numbers in of_kind.items()
        for metric, value in numbers.items()
    ]  # fmt: skip


def page(compared, frames, found, real, survey, name):
    """Return the like-for-like page: comparisons, verdict, published facts, real cutouts."""
    said, ground = verdict(compared)
    sizes = {key: len(rows) for key, rows in survey.parts["order"].items()}
    shared = {split: data.shared_planes(survey, split) for split in survey.parts}
    parts = [
        "# Have neural networks improved? EfficientNetB0 and LASTRO EPFL like for like\n",
        f"Written by the program: {survey.title}, {name} scale, {sizes['train']} training and "
        f"{sizes['test']} test objects. Both networks see the same objects, as many of them, and "
        f"are scored on the same; {shared['order']:.1%} of the test objects have a lens plane that "
        f"is in training too by the order of the IDs, {shared['planes']:.1%} where planes are kept "
        "apart.\n",
        f"**Verdict on \"neural networks have improved\": {said}**; {ground}.\n",
        "A network is better, or worse, if both 95 % intervals of the mean difference of AUROCs "
        "say so: over the test objects (paired bootstrap) and over the trainings (t).\n",
        report.markdown(readable(compared)),
        "## What was published\n", report.markdown(published()),
        "## At no and at ten false positives\n",
        report.markdown(leaderboard(frames, found, survey)),
        "TPR0 and TPR10 hang on the number of objects: compare those of one sample alone.\n",
        f"## Real cutouts of the I SGLC, scored after training on {survey.title}\n",
        report.markdown(real_scores(real)),
        "One score a training. The cutouts are among the first 18,000 of the real survey, so that "
        "networks trained on it have seen them.\n",
    ]  # fmt: skip
    return "\n".join(parts)


def readable(compared):
    """Return the table of `compare_pairs` as text."""
    number = report.number

    def spread(row, prefix):
        return f"{number(row[f'{prefix}auc'])} ± {number(row[f'{prefix}auc_sd'])}".rstrip(" ±")

    def bounds(row, of):
        low, high = row[f"low_{of}"], row[f"high_{of}"]
        return "none" if pd.isna(low) else f"[{number(low)}, {number(high)}]"

    return pd.DataFrame([
        {
            "network": row["network"], "AUROC": spread(row, ""),
            "against": row["other"], "its AUROC": spread(row, "other_"), "trainings": row["runs"],
            "difference": number(row["difference"], sign=True),
            "95 % over objects": bounds(row, "objects"), "95 % over trainings": bounds(row, "runs"),
            "p of each training (DeLong)": row["delong_p"], "the network is": row["reading"],
        }
        for _, row in compared.iterrows()
    ])  # fmt: skip


def published():
    """Return the published AUROCs of both networks, and on which images."""
    reported = tables.read(REPRODUCTIONS / "reported.csv")
    rows = [
        {"network": experiment, "AUROC": f"{row['value']} ± {row['uncertainty']}".rstrip(" ±"),
         "images": row["split"], "source": f"Gabe (2022), {row['source']}"}
        for experiment in ("efficientnet_b0", "lastro")
        for _, row in tables.cell(reported, "nottingham", experiment, "roc_auc").iterrows()
        if row["source"].startswith("Sec. 4") or experiment == "lastro"
    ]  # fmt: skip
    rows.append({
        "network": "LASTRO EPFL", "AUROC": LEADERBOARD["LASTRO EPFL"][0],
        "images": f"challenge test, {CHALLENGE_SCORED:,}", "source": "its ranking",
    })  # fmt: skip
    rows.append({
        "network": "LASTRO EPFL, baseline", "AUROC": f"about {HELD_OUT_LASTRO}",
        "images": "3,000 held-out training images", "source": "its authors' report, Figure 15",
    })  # fmt: skip
    return pd.DataFrame(rows)


def leaderboard(frames, found, survey):
    """Return the challenge's ranking with our networks below it."""
    rows = [
        {"entry": name, "images": f"challenge test, {CHALLENGE_SCORED:,}", "AUROC": auc,
         "TPR0": tpr0, "TPR10": tpr10}
        for name, (auc, tpr0, tpr10) in LEADERBOARD.items()
    ]  # fmt: skip
    for name, frame in frames.items():
        if name.endswith("threshold_high"):  # the same scores
            continue
        mean = frame.groupby("metric")["value"].mean()
        rows.append({
            "entry": f"here: {name}",
            "images": f"{survey.title}, {_split(name, survey, found[name])['split']}",
            "AUROC": report.number(mean["roc_auc"]), "TPR0": report.number(mean["tpr0"]),
            "TPR10": report.number(mean["tpr10"]),
        })  # fmt: skip
    return pd.DataFrame(rows)


def real_scores(real):
    """Return each real cutout's label beside its scores, one column a network."""
    if not real:
        text = "none: CAST_LENS_DATA names no folder with sglc1/space_based"
        return pd.DataFrame({"object": [text], "label": [""]})
    first = next(iter(real.values())).drop_duplicates("object_id")
    shown = pd.DataFrame({"object": first["object_id"], "label": first["label"]})
    for cell, table in real.items():
        by_object = table.groupby("object_id")["score"]
        shown[cell] = [" ".join(f"{score:.2f}" for score in by_object.get_group(one))
                       for one in shown["object"]]  # fmt: skip
    return shown
