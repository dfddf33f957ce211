"""Where a public data file is: named, in CAST_LENS_DATA, downloaded before, or downloadable now."""

import errno
import hashlib
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

DOWNLOAD_TIMEOUT = 30  # seconds without an answer before a server counts as unreachable


class DataError(ValueError):
    """A data file that was named is missing or is not the published one."""


class DataUnavailableError(RuntimeError):
    """A data file is not on this machine and could not be downloaded."""


@dataclass(frozen=True)
class DataFile:
    """One public file.

    Attributes:
        path: Where it lies below the CAST_LENS_DATA folder, e.g. "sglc1/classifications.csv".
        url: Public address of the file.
        sha256: Hash of the published file, 64 hexadecimal digits.
        source: Who published it, for the credits.
    """

    path: str
    url: str
    sha256: str
    source: str


def locate(file, *, data=None):
    """Return the path of a public data file, downloading it as the last resort.

    Tried in order: `data`, the folder in CAST_LENS_DATA, an earlier download, the file's URL.
    A file is used only if its SHA-256 is the published one.

    Args:
        file: The DataFile wanted.
        data: The file itself or a folder that holds it, as the user named it; None if not named.

    Returns:
        Path of the verified file.

    Raises:
        DataError: If `data` was named but lacks the file, or a file found is not the published one.
        DataUnavailableError: If it is nowhere and the download failed; the message names the URL,
            the hash and `DATA=`.
    """
    if data:
        return verify(_inside(Path(os.path.expanduser(data)), file), file)
    if os.environ.get("CAST_LENS_DATA"):
        candidate = Path(os.environ["CAST_LENS_DATA"]).expanduser() / file.path
        if candidate.is_file():
            return verify(candidate, file)
    cached = cache_folder() / file.path
    if cached.is_file() and sha256(cached) == file.sha256:
        return cached
    return download(file)


def cache_folder():
    """Return the folder of earlier downloads: CAST_LENS_CACHE, or the user's cache folder."""
    import pooch

    return Path(os.environ.get("CAST_LENS_CACHE") or pooch.os_cache("cast_lens")).expanduser()


def download(file):
    """Download a public file into the cache, verified before it gets its final name.

    Args:
        file: The DataFile wanted.

    Returns:
        Path of the verified file.

    Raises:
        DataUnavailableError: If the server cannot be reached, answers with an error, or sends
            anything but the published bytes; nothing is left under the final name.
    """
    import pooch
    import requests
    from tqdm import tqdm

    target = cache_folder() / file.path
    pooch.get_logger().setLevel("WARNING")  # the progress bar says enough
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        # pooch sets the total; its own bar would stay open and share its line with the error.
        with tqdm(desc=target.name, total=1, unit="B", unit_scale=True, leave=False) as bar:
            fetched = pooch.retrieve(
                file.url,
                known_hash=f"sha256:{file.sha256}",
                fname=target.name,
                path=target.parent,
                downloader=pooch.HTTPDownloader(progressbar=bar, timeout=DOWNLOAD_TIMEOUT),
            )
    except (requests.RequestException, ValueError, OSError) as error:
        cause = " ".join(str(error).split())
        if isinstance(error, requests.ConnectionError | requests.Timeout):
            cause = f"{type(error).__name__}: the server could not be reached"
        raise DataUnavailableError(
            f"{target.name} is not on this machine and was not downloaded ({cause}). Get "
            f"{file.url} (SHA-256 {file.sha256}) and name it with DATA=file-or-folder, or put it "
            f"at {file.path} in the folder that CAST_LENS_DATA names."
        ) from error
    return Path(fetched)


def verify(path, file):
    """Return `path` if it holds the published bytes.

    Args:
        path: File on this machine.
        file: The DataFile it should be.

    Returns:
        `path`.

    Raises:
        DataError: If the SHA-256 differs.
    """
    found = sha256(path)
    if found != file.sha256:
        raise DataError(
            f"{path} is not the published {Path(file.path).name}: SHA-256 {found}, expected "
            f"{file.sha256}. Get {file.url}, or leave DATA and CAST_LENS_DATA unset to download it."
        )
    return path


def sha256(path, *, told=len):
    """Return the SHA-256 of a file as 64 hexadecimal digits.

    Args:
        path: The file.
        told: Called with every block that was read, e.g. to move a progress bar.

    Returns:
        The digits as a str.
    """
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
            told(block)
    return digest.hexdigest()


def require_space(folder, needed):
    """Refuse to begin what the disk cannot hold.

    Args:
        folder: Folder to be written into.
        needed: Bytes to be written.

    Raises:
        OSError: If fewer bytes are free; says how many are needed and free.
    """
    free = shutil.disk_usage(folder).free
    if needed > free:
        cause = f"{os.strerror(errno.ENOSPC)}; {needed} bytes needed, {free} free"
        raise OSError(errno.ENOSPC, cause, str(folder))


def _inside(named, file):
    """Return the wanted file where `named` is the file, its folder or a folder of surveys."""
    candidates = [named] if named.is_file() else [named / file.path, named / Path(file.path).name]
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    looked = " and ".join(str(candidate) for candidate in candidates)
    raise DataError(f"DATA={named} holds no {Path(file.path).name}; looked for {looked}")
