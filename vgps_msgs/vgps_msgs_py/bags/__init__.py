"""Recordings: the one way to read and write them, whole or damaged, MCAP or sqlite3, with or without ROS.

Read::

    from vgps_msgs_py.bags import Bag

    bag = Bag('runs/EPISODE')                     # everything but the images, which may be larger than the memory
    for problem in bag.problems:                  # what was damaged or unknown, in words
        print(problem)
    for episode in bag.episodes:                  # EpisodeRecord: instruction, outcome, steps
        stamps = {step.stamp for step in episode.steps}
        for frame in bag.frames(wanted=stamps):   # streamed, decoded on demand
            image = frame.image()                 # (H, W, 3) uint8 RGB

Steps hold the recorded messages with ROS's field names: ``step.actions`` (K, H, 7) float32 physical, ``step.q_values``
(E, K) float32, ``step.decision``, ``step.command``, ``step.states``. Messages of other software are in
``bag.messages``, by type.

Write::

    from vgps_msgs_py.bags import BagWriter, Topic

    writer = BagWriter('runs/new')                # a folder that ros2 bag, rosbags and Foxglove read
    writer.write(Topic('/vgps/episode', 'vgps_msgs/msg/Episode'), cdr_bytes, received_nanoseconds)
    writer.close()

``BagError`` says that nothing in a recording can be used; damage to a part costs that part and is named in
``problems``. Needs ``pip install 'vgps_msgs_py[bags]'`` or the ROS workspace's environment.
"""

from importlib import import_module

_HOMES = {'Bag': 'reader', 'EpisodeRecord': 'reader', 'Frame': 'reader', 'Step': 'reader', 'BagError': 'storage',
          'BagStorage': 'storage', 'RawMessage': 'storage', 'BagWriter': 'writer', 'Topic': 'writer',
          'MessageTypes': 'message_types', 'UnknownTypeError': 'message_types'}
__all__ = list(_HOMES)


def __getattr__(name: str) -> object:
    """Import a reader's or writer's libraries when they are first asked for."""
    if name not in _HOMES:
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    try:
        return getattr(import_module(f'{__name__}.{_HOMES[name]}'), name)
    except ModuleNotFoundError as error:
        raise ImportError(f"recordings need {error.name}: pip install 'vgps_msgs_py[bags]'") from error
