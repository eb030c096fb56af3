"""The authors' way of feeding, for `loader.py` to measure beside ours; needs TensorFlow and numpy, and nothing of ours.

    python authors_pipeline.py FRAMES.npz THREADS BATCH BATCHES      # prints ms of CPU per transition

As their loader does it: tf.data decodes, resizes (Lanczos, antialiased) and augments s and s' with one seed, frame by
frame, and makes batches. What comes before (reading and parsing records, trajectories, the buffer of 50,000 encoded
frames that they are shuffled in) is left out, in its favour.
"""
import resource
import sys

import numpy as np
import tensorflow as tf

SIZE = 256
WARM = 4  # batches before the clock starts: the graph is built in the first


def crop(image: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Return a random window of an image (H, W, 3), at the same size."""
    def uniform(low: tf.Tensor | float, high: tf.Tensor | float) -> tf.Tensor:
        return tf.random.stateless_uniform((1,), seed, low, high)

    scale, ratio = uniform(0.8, 1.0), tf.exp(uniform(np.log(0.9), np.log(1.1)))
    height, width = (tf.clip_by_value(tf.sqrt(side), 0, 1) for side in (scale / ratio, scale * ratio))
    top, left = (uniform(0.0, 1 - side[0]) for side in (height, width))
    boxes = tf.stack([top, left, top + height, left + width], 1)
    return tf.image.crop_and_resize(image[None], boxes, tf.range(1), (SIZE, SIZE))[0]


AUGMENTATIONS = (
    crop,
    lambda image, seed: tf.image.stateless_random_brightness(image, 0.1, seed),
    lambda image, seed: tf.image.stateless_random_contrast(image, 0.9, 1.1, seed),
    lambda image, seed: tf.image.stateless_random_saturation(image, 0.9, 1.1, seed),
    lambda image, seed: tf.image.stateless_random_hue(image, 0.05, seed))


def prepare(data: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Return an encoded image as (SIZE, SIZE, 3) uint8, resized and augmented."""
    image = tf.io.decode_image(data, channels=3, expand_animations=False)
    image = tf.image.resize(image, (SIZE, SIZE), 'lanczos3', antialias=True)
    image = tf.cast(tf.clip_by_value(tf.round(image), 0, 255), tf.uint8)
    image = tf.image.convert_image_dtype(image, tf.float32)
    for augment in AUGMENTATIONS:
        image = tf.clip_by_value(augment(image, seed), 0, 1)
    return tf.image.convert_image_dtype(image, tf.uint8, saturate=True)


def pair(now: tf.Tensor, after: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Return s and s', augmented alike."""
    seed = tf.random.uniform((2,), maxval=tf.int32.max, dtype=tf.int32)
    return prepare(now, seed), prepare(after, seed)


def main(path: str, threads: int, batch: int, batches: int) -> None:
    """Print ms of CPU of all threads per transition."""
    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(threads)
    with np.load(path) as frames:
        data, sizes = frames['data'].tobytes(), frames['sizes']
    ends = np.cumsum(sizes)
    encoded = [data[end - size:end] for end, size in zip(ends.tolist(), sizes.tolist())]
    options = tf.data.Options()
    options.threading.private_threadpool_size = threads
    source = tf.data.Dataset.from_tensor_slices((encoded[:-1], encoded[1:]))
    source = source.shuffle(len(encoded)).repeat().map(pair, num_parallel_calls=threads).batch(batch)
    source = iter(source.with_options(options))
    for _ in range(WARM):
        next(source)
    start = resource.getrusage(resource.RUSAGE_SELF)
    for _ in range(batches):
        next(source)
    end = resource.getrusage(resource.RUSAGE_SELF)
    used = end.ru_utime + end.ru_stime - start.ru_utime - start.ru_stime
    print(1000 * used / (batch * batches))


if __name__ == '__main__':
    main(sys.argv[1], *map(int, sys.argv[2:]))
