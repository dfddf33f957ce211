"""Which images the options of a command name, or the candidates that it reads."""

import json
from pathlib import Path


def find_images(options, bands):
    """Find the images that options name, with these bands."""
    from cast_lens import images

    names = ("id_column", "path_column", "label_column", "pixel_scale", "mask_value")
    return images.find(options.images, bands=bands, **{n: getattr(options, n) for n in names})


def images_of(options):
    """Return the images of a folder of candidates, or those that were named.

    Args:
        options: Of the command line: candidates, images, bands, and those of `find_images`.

    Raises:
        ImagesError: If run.json does not tell where they are; as `images.find` otherwise.
    """
    from cast_lens import candidates, images

    if options.images is not None:
        return find_images(options, bands_of(options))
    path, about = Path(options.candidates) / candidates.ABOUT, about_of(options)
    if not about:
        raise images.ImagesError(
            f"{path}: found no source of images there, expected the folder that `cast-lens "
            "score` wrote; name the images with --images"
        )
    try:
        return images.find_again(about)
    except images.ImagesError as error:
        raise images.ImagesError(f"{path}: {error}") from error


def about_of(options):
    """Return what run.json of a folder of candidates says, {} if there is none.

    Raises:
        CandidateError: If it is damaged: how the images were scored would not be known.
    """
    from cast_lens import candidates

    path = Path(options.candidates) / candidates.ABOUT
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except ValueError:
        found = None
    sound = isinstance(found, dict) and isinstance(found.get("options", {}), dict)
    if not sound:
        raise candidates.CandidateError(
            f"{path}: found no JSON object as `cast-lens score` writes it, expected how the images "
            "were scored; get the file again, or remove it and name the images with --images"
        )
    return found


def bands_of(options):
    """Return the list of bands that were named, or None; as `named_bands`."""
    return None if options.bands is None else named_bands(options.bands)


def named_bands(text):
    """Return the names in a text such as "g,r".

    Raises:
        ImagesError: If a name is empty.
    """
    from cast_lens import images

    found = [name.strip() for name in text.split(",")]
    if not all(found):
        raise images.ImagesError(
            f"--bands is {text!r}, expected names of bands with a comma between two"
        )
    return found
