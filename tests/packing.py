"""Archives for tests: small surveys packed as their publishers do, or as an attacker would."""

import gzip
import io
import random
import tarfile

from cast_lens import archive

_random = random.Random(0)
FILES = {
    "Training/README": b"two archives inside\n",
    "Training/classifications.csv": b"ID,is_lens\n100000,1\n100001,0\n",
    "Training/Data.0/Public/Band1/imageEUC_VIS-100000.fits": _random.randbytes(40_000),
    "Training/Data.0/Public/Band1/imageEUC_VIS-100001.fits": _random.randbytes(512),
    "Training/Data.1/Public/Band1/imageEUC_VIS-100002.fits": _random.randbytes(40_001),
    "Training/Data.1/Public/Band1/imageEUC_VIS-100003.fits": b"",
}
MEMBERS = (("classifications.csv", 1), ("imageEUC_VIS-*.fits", 4))


def member(name, data=b"", *, kind=tarfile.REGTYPE, **fields):
    """Return a member as `tar` takes it: a TarInfo and its bytes."""
    info = tarfile.TarInfo(name)
    info.type, info.size = kind, len(data)
    for field, value in fields.items():
        setattr(info, field, value)
    return info, data


def tar(*members, form=tarfile.PAX_FORMAT, end=True):
    """Return the bytes of a .tar of members, headers written as they are told."""
    stream = io.BytesIO()
    for info, data in members:
        stream.write(info.tobuf(form) + data + bytes(-len(data) % 512))
    return stream.getvalue() + bytes(1024 if end else 0)


def packed(*members, **options):
    """Return the bytes of a .tar.gz of members."""
    return gzip.compress(tar(*members, **options), 1, mtime=0)


def files(contents):
    return [member(name, data) for name, data in contents.items()]


def nested_archive(contents=FILES):
    """Return a .tar.gz in the layout of GroundBasedTraining: plain files, and archives inside."""
    inner = {}
    for name, data in contents.items():
        folder, _, rest = name.partition("/Data.")
        if rest:
            inner.setdefault((folder, rest[0]), {})[f"Data.{rest}"] = data
    plain = {name: data for name, data in contents.items() if "/Data." not in name}
    tars = {f"{f}/Data.{n}.tar.gz": packed(*files(part)) for (f, n), part in inner.items()}
    return packed(*files(plain | tars))


def survey(*archives, members=MEMBERS):
    return archive.Survey(archives, members, "nobody (2020)")


def contents(folder):
    """Return {relative path: bytes, or None for a folder} of everything below a folder."""
    return {
        str(path.relative_to(folder)): None if path.is_dir() else path.read_bytes()
        for path in sorted(folder.rglob("*"))
    }


def unpacked(folder):
    """Return the files of a survey's folder without the record of where they came from."""
    found = {name: data for name, data in contents(folder).items() if data is not None}
    found.pop(archive.RECORD, None)
    return found
