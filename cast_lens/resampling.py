"""Turn, mirror and zoom images about their centers; what to do is drawn or given, object by object.

Matrices are about array centers, so that one matrix means the same on the sky in all branches of
an object, whatever their pixel scales, if they are centered on the same point. Only the eight
dihedral elements move whole pixels and so conserve flux exactly. Others interpolate once,
bilinearly: they conserve surface brightness, and a zoom by z multiplies flux by z^2. Pixels that
come from outside the image follow `fill`: "nearest" repeats the border, "reflect" mirrors at the
outer edge of the border, and a number is a constant sky.
"""

import keras
import numpy as np
from keras import ops

ELEMENTS = 8  # of the dihedral group of the square


def check_fill(fill):
    """Raise ValueError unless `fill` is "nearest", "reflect" or a finite number."""
    number = isinstance(fill, (int, float)) and not isinstance(fill, bool)
    if fill not in ("nearest", "reflect") and not (number and np.isfinite(fill)):
        raise ValueError(f'fill is {fill!r}, expected "nearest", "reflect" or a finite number')


def similarities(n, *, rotation, mirror, zoom, seed):
    """Draw the matrices of `n` random rotations, mirrorings and zooms.

    Args:
        n: Number of objects.
        rotation: Largest angle, degrees.
        mirror: Whether each axis is mirrored with probability 1/2.
        zoom: Smallest and largest zoom.
        seed: keras.random.SeedGenerator, or an integer.

    Returns:
        Tensor, float32, shape (n, 2, 2), for `resample`: the matrix takes the (row, column) offset
        from the center of a pixel of the new image to where its value is found in the old one.
    """
    draw = keras.random.uniform((4, n), seed=seed)
    angle = (2 * draw[0] - 1) * (rotation * np.pi / 180)
    scale = 1 / (zoom[0] + (zoom[1] - zoom[0]) * draw[1])
    signs = ops.where(draw[2:] < (0.5 if mirror else 0.0), -1.0, 1.0)  # (2, n)
    cosine, sine = scale * ops.cos(angle), scale * ops.sin(angle)
    rows = ops.stack([signs[0] * cosine, -signs[0] * sine], axis=-1)
    columns = ops.stack([signs[1] * sine, signs[1] * cosine], axis=-1)
    return ops.stack([rows, columns], axis=1)


def resample(images, matrices, *, fill):
    """Transform every image about its array center by one bilinear interpolation.

    Args:
        images: Shape (batch, height, width, band), at least 2 pixels each way.
        matrices: Shape (batch, 2, 2), as from `similarities`.
        fill: "nearest", "reflect" or a number, see the module.

    Returns:
        Tensor, float32, the shape of `images`. As scipy.ndimage.affine_transform of order 1 in
        mode "nearest", "reflect" or "grid-constant".

    Raises:
        ValueError: If `fill` is none of these.
    """
    check_fill(fill)
    images, matrices = ops.convert_to_tensor(images, "float32"), ops.cast(matrices, "float32")
    if keras.backend.backend() == "tensorflow":
        return _resample_by_kernel(images, matrices, fill)
    return _resample_by_gather(images, matrices, fill)


def dihedral(images, elements):
    """Turn every image by an element of the dihedral group of the square, pixel for pixel.

    Args:
        images: Shape (batch, height, width, band), height equal to width.
        elements: Integers in [0, 8), shape (batch,): mirror the rows if e & 1, then the columns
            if e & 2, then swap the axes if e & 4. 0 changes nothing.

    Returns:
        Tensor, the shape and type of `images`.

    Raises:
        ValueError: If the images are not square.
    """
    images = ops.convert_to_tensor(images)
    size = images.shape[1]
    if size != images.shape[2]:
        raise ValueError(f"images have shape {images.shape}, expected height equal to width")
    e = ops.reshape(ops.cast(elements, "int32"), (-1, 1, 1))
    line = ops.arange(size, dtype="int32")
    row, column = ops.reshape(line, (1, -1, 1)), ops.reshape(line, (1, 1, -1))
    swap = e >= 4
    row, column = ops.where(swap, column, row), ops.where(swap, row, column)
    row = ops.where(e % 2 == 1, size - 1 - row, row)
    column = ops.where(e // 2 % 2 == 1, size - 1 - column, column)
    return _take(images, row, column)


def _resample_by_kernel(images, matrices, fill):
    """Resample by Keras's affine_transform, which TensorFlow has a kernel for."""
    center = [(size - 1) / 2 for size in images.shape[1:3]]
    (rr, rc), (cr, cc) = [[matrices[:, i, j] for j in (0, 1)] for i in (0, 1)]
    row = center[0] - rr * center[0] - rc * center[1]
    column = center[1] - cr * center[0] - cc * center[1]
    zero = ops.zeros_like(row)
    transform = ops.stack([cc, cr, column, rc, rr, row, zero, zero], axis=-1)
    mode = {"fill_mode": fill} if isinstance(fill, str) else {"fill_value": fill}
    return ops.image.affine_transform(images, transform, interpolation="bilinear", **mode)


def _resample_by_gather(images, matrices, fill):
    """Resample by four gathers, where affine_transform is several times slower (JAX on a CPU).

    It also multiplies coordinates as matrices, which a GPU may do with 10 bits: 0.1 pixels.
    """
    height, width = images.shape[1:3]
    rows = ops.reshape(ops.arange(height, dtype="float32") - (height - 1) / 2, (1, -1, 1))
    columns = ops.reshape(ops.arange(width, dtype="float32") - (width - 1) / 2, (1, 1, -1))
    if not isinstance(fill, str):
        images = ops.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=fill)
    found = []
    for axis, size in enumerate(images.shape[1:3]):
        by_row, by_column = (ops.reshape(matrices[:, axis, i], (-1, 1, 1)) for i in (0, 1))
        at = by_row * rows + by_column * columns + (size - 1) / 2  # (batch, height, width)
        if fill == "reflect":
            at = ops.mod(at + 0.5, 2 * size)
            at = ops.minimum(at, 2 * size - at) - 0.5
        at = ops.clip(at, 0, size - 1)
        lower = ops.minimum(ops.floor(at), size - 2)
        found.append((ops.cast(lower, "int32"), ops.expand_dims(at - lower, -1)))
    (row, down), (column, right) = found
    above = _take(images, row, column) * (1 - right) + _take(images, row, column + 1) * right
    below = (
        _take(images, row + 1, column) * (1 - right) + _take(images, row + 1, column + 1) * right
    )
    return above * (1 - down) + below * down


def _take(images, row, column):
    """Return the pixels of every image at int32 rows and columns, shape (batch, height, width)."""
    height, width, bands = images.shape[1:]
    n = ops.shape(images)[0]
    first = ops.reshape(ops.arange(n, dtype="int32") * (height * width), (-1, 1, 1))
    return ops.take(ops.reshape(images, (-1, bands)), first + row * width + column, axis=0)
