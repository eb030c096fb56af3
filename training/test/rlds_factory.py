"""Write TFRecord files the way TensorFlow does, for tests."""
import io
import json
import struct

import numpy as np
from PIL import Image

from vgps_training.data.tfrecord import masked_crc32c


def varint(n):
    out = b''
    while n > 127:
        out, n = out + bytes([n & 127 | 128]), n >> 7
    return out + bytes([n])


def message(number, payload):
    return varint(number << 3 | 2) + varint(len(payload)) + payload


def feature(value):
    if isinstance(value, list):
        return message(1, b''.join(message(1, v) for v in value))
    if value.dtype.kind == 'f':
        return message(2, message(1, value.astype('<f4').tobytes()))
    return message(3, message(1, b''.join(varint(int(v) & (1 << 64) - 1) for v in value.ravel())))


def example(features):
    return message(1, b''.join(message(1, message(1, k.encode()) + message(2, feature(v)))
                               for k, v in features.items()))


def record(payload):
    length = struct.pack('<Q', len(payload))
    return (length + struct.pack('<I', masked_crc32c(length)) + payload + struct.pack('<I', masked_crc32c(payload)))


def png(image):
    out = io.BytesIO()
    Image.fromarray(image).save(out, 'PNG')
    return out.getvalue()


def folder(path, name, payloads):
    path.mkdir(parents=True)
    (path / 'dataset_info.json').write_text(json.dumps({'name': name}))
    (path / 'features.json').write_text('{}')
    (path / f'{name}-train.tfrecord-00000-of-00001').write_bytes(b''.join(record(p) for p in payloads))
    return path


def steps(images, actions, text='do it', **more):
    return {'steps/observation/image': [png(i) for i in images], 'steps/action': np.asarray(actions, np.float32),
            'steps/language_instruction': [text.encode()] * len(images), **more}
