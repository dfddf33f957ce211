"""Run in .venv-paper: what the papers' own libraries give on fixed inputs, written as one .npz."""

import sys

import numpy as np
import tensorflow as tf
import tensorflow_addons as tfa


def main(path):
    """Write inputs and outputs of tensorflow-addons' focal loss."""
    rng = np.random.default_rng(0)
    labels = (rng.random(500) < 0.3).astype(np.float32)
    logits = (4 * rng.standard_normal(500)).astype(np.float32)
    out = {"labels": labels, "logits": logits}
    for alpha in (0.25, 0.75):
        loss = tfa.losses.SigmoidFocalCrossEntropy(
            from_logits=True, alpha=alpha, gamma=2.0, reduction=tf.keras.losses.Reduction.NONE
        )
        watched = tf.constant(logits[:, None])
        with tf.GradientTape() as tape:
            tape.watch(watched)
            value = loss(labels[:, None], watched)
        out[f"focal_{alpha}"] = value.numpy()
        out[f"focal_gradient_{alpha}"] = tape.gradient(value, watched).numpy()[:, 0]
    np.savez(path, **out)
    print(f"tensorflow {tf.__version__}, tensorflow-addons {tfa.__version__}: wrote {path}")


if __name__ == "__main__":
    main(sys.argv[1])
