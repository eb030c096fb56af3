"""Bags for the tests: episodes as the live system records them, made without ROS."""

import numpy as np

from vgps_msgs_py.bags.message_types import MessageTypes
from vgps_msgs_py.bags.writer import BagWriter, Topic

START = 1_700_000_000_000_000_000  # [ns]
FRAME = 33_333_333
LASTS = 300_000_000  # [ns] from a frame until its step is over and reported
K, E, H = 6, 2, 4
INSTRUCTION = 'put the eggplant in the basket'


class Messages:
    """Builds message objects without ROS."""

    def __init__(self):
        self.types = MessageTypes()

    def make(self, name, /, **fields):
        """Return a message with every field at its default except these."""
        cls = self.types.message_class(name)
        values = {}
        for key, (kind, argument) in self.types.store.fielddefs[name][1]:
            values[key] = fields.pop(key) if key in fields else self._default(kind.name, argument)
        assert not fields, fields
        return cls(**values)

    def _default(self, kind, argument):
        if kind == 'NAME':
            return self.make(argument)
        if kind == 'BASE':
            return {'string': '', 'bool': False}.get(argument[0], 0.0 if argument[0].startswith('float') else 0)
        element = argument[0][1][0]
        if element == 'string' or argument[0][0].name == 'NAME':
            return []
        dtype = {'byte': 'uint8', 'char': 'uint8', 'octet': 'uint8', 'bool': 'bool'}.get(element, element)
        return np.zeros(argument[1] if kind == 'ARRAY' else 0, dtype)

    def stamp(self, nanoseconds):
        return self.make('builtin_interfaces/msg/Time', sec=nanoseconds // 10**9, nanosec=nanoseconds % 10**9)

    def header(self, nanoseconds, frame_id='camera'):
        return self.make('std_msgs/msg/Header', stamp=self.stamp(nanoseconds), frame_id=frame_id)

    def serialize(self, message):
        return self.types.serialize(message, message.__msgtype__)


def picture(number, size=96):
    """Return a frame that differs from every other: a square that moves, the number in its pixels."""
    image = np.full((size, size, 3), 90, np.uint8)
    image[: size // 3] = (140, 160, 180)
    left = 4 + (number * 3) % (size - 24)
    image[size // 2:size // 2 + 16, left:left + 16] = (120, 40, 150)
    image[0, 0] = (number % 256, number // 256, 7)
    return image


def image_message(messages, number, stamp, compressed=False):
    image = picture(number)
    if compressed:
        import cv2
        data = cv2.imencode('.png', image[:, :, ::-1])[1].ravel()
        return messages.make('sensor_msgs/msg/CompressedImage', header=messages.header(stamp), format='rgb8; png',
                             data=data)
    return messages.make('sensor_msgs/msg/Image', header=messages.header(stamp), height=image.shape[0],
                         width=image.shape[1], encoding='rgb8', step=image.shape[1] * 3, data=image.ravel())


def topic(name, type_name, **options):
    return Topic(f'/vgps/{name}', type_name, **options)


def episode_messages(messages, episode_id='episode-1', steps=8, outcome=1, start=START, compressed=False, seed=3):
    """Yield ``(topic, message, received)`` of an episode as the live system publishes it."""
    rng = np.random.default_rng(seed)

    def announce(value, received, text=''):
        return (topic('episode', 'vgps_msgs/msg/Episode', latched=True), messages.make(
            'vgps_msgs/msg/Episode', header=messages.header(received), episode_id=episode_id, instruction=INSTRUCTION,
            task='put_eggplant_in_basket', seed=seed, max_steps=60, outcome=value, message=text), received)

    for node, model in (('policy_node', 'flow-policy'), ('critic_node', 'stand-in: untrained critic')):
        yield (topic('configuration', 'vgps_msgs/msg/NodeConfiguration', latched=True), messages.make(
            'vgps_msgs/msg/NodeConfiguration', header=messages.header(start), node=node, version=f'{node} 0.1.0',
            parameters='beta: 0.0\n', model=model, model_hash='abc123'), start)
    yield announce(0, start)
    image_topic = topic('image_raw/compressed' if compressed else 'image_raw',
                        f'sensor_msgs/msg/{"CompressedImage" if compressed else "Image"}', reliable=False)
    number = 0
    for step in range(steps):
        for _ in range(6):
            stamp = start + number * FRAME
            yield image_topic, image_message(messages, number, stamp, compressed), stamp + 2_000_000
            number += 1
        header = messages.header(stamp)
        common = {'header': header, 'episode_id': episode_id, 'step': step}
        actions = rng.normal(0, 0.02, (K, H, 7)).astype(np.float32)
        actions[:, :, 6] = rng.random((K, H)) > 0.5
        q_values = (rng.normal(-20 + step, 1, (E, K))).astype(np.float32)
        minimum = q_values.min(axis=0)
        chosen = int(minimum.argmax())
        yield topic('step_started', 'vgps_msgs/msg/StepStarted'), messages.make(
            'vgps_msgs/msg/StepStarted', instruction=INSTRUCTION, **common), stamp + 5_000_000
        yield topic('candidates', 'vgps_msgs/msg/ActionCandidates'), messages.make(
            'vgps_msgs/msg/ActionCandidates', instruction=INSTRUCTION, policy='flow-policy', num_candidates=K,
            horizon=H, actions=actions.ravel(), log_probabilities=np.zeros(K, np.float32), temperature=1.0, seed=step,
            stages=['sample'], stage_milliseconds=np.array([40], np.float32), **common), stamp + 50_000_000
        fallback = step == 5
        yield topic('decision', 'vgps_msgs/msg/SteeringDecision'), messages.make(
            'vgps_msgs/msg/SteeringDecision', instruction=INSTRUCTION, num_candidates=K, num_members=E,
            q_values=np.zeros(0, np.float32) if fallback else q_values.ravel(),
            probabilities=np.zeros(0, np.float32) if fallback else np.eye(K, dtype=np.float32)[chosen],
            chosen=0 if fallback else chosen, action=actions[0 if fallback else chosen, 0], beta=0.0, seed=step,
            critic_hash='abc123', policy='flow-policy', verdict=int(fallback), reason=3 if fallback else 0,
            message='no frame with this stamp' if fallback else 'argmax of 6 values', spread=float(np.ptp(minimum)),
            disagreement=0.5, effective_sample_size=1.0, value=float('nan') if fallback else float(minimum[chosen]),
            value_trend=1.0, stages=['encode', 'score', 'select'],
            stage_milliseconds=np.array([20, 2, 0.2], np.float32), **common), stamp + 58_000_000
        yield topic('command', 'vgps_msgs/msg/EndEffectorCommand'), messages.make(
            'vgps_msgs/msg/EndEffectorCommand', action=actions[chosen, 0].astype(np.float64), **common), \
            stamp + 59_000_000
        for state, delay in ((1, 62_000_000), (0, 262_000_000)):
            yield topic('controller_state', 'vgps_msgs/msg/ControllerState'), messages.make(
                'vgps_msgs/msg/ControllerState', header=messages.header(stamp + delay, 'base'), episode_id=episode_id,
                step=step, state=state, image_to_command_ms=61.0, inverse_kinematics_ms=1.5), stamp + delay
    if outcome:
        yield announce(outcome, stamp + LASTS, 'the eggplant lies in the basket')


def write_bag(folder, compressed=False, messages=None, **options):
    """Write an episode bag and return its folder."""
    messages = messages or Messages()
    writer = BagWriter(folder, messages.types)
    for where, message, received in episode_messages(messages, compressed=compressed, **options):
        writer.write(where, messages.serialize(message), received)
    writer.close()
    return folder


def count_readings(monkeypatch) -> list[str]:
    """Return a list that grows by the path of a recording at each pass over it."""
    from vgps_msgs_py.bags import reader
    passes, storage = [], reader.BagStorage

    def opened(path):
        passes.append(str(path))
        return storage(path)
    monkeypatch.setattr(reader, 'BagStorage', opened)
    return passes
