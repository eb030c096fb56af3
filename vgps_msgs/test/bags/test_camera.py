"""Frames that cannot show the motion: named; and what only looks so: left alone."""
import numpy as np
import pytest

from vgps_msgs_py.bags.camera import one_frame, stood_still


def places(steps, way, unknown=()):
    result = np.zeros((steps, 3))
    result[:, 0] = np.linspace(0, way, steps)
    result[list(unknown)] = np.nan
    return result


@pytest.mark.parametrize('same, way, unknown, words', [
    ([0, 1, 1, 1, 1, 0], 0.6, (), '5 frames from step 1 on'),
    ([1] * 7, 0.08, (), '8 frames from step 0 on'),
    ([0, 1, 1, 1, 0, 1, 1], 0.6, (), ''),       # four alike: a camera may be that slow
    ([1] * 7, 0.02, (), ''),                    # nothing moved
    ([1] * 7, 0.6, range(2, 8), ''),            # where the hand was is not known
    ([1] * 7, 0.6, (3,), '8 frames'), ([0] * 7, 0.6, (), ''), ([], 0.0, (), '')])
def test_a_camera_that_stood_still_is_named_only_where_the_hand_moved(same, way, unknown, words):
    found = stood_still([bool(s) for s in same], places(len(same) + 1, way, unknown))
    assert words in found if words else not found


@pytest.mark.parametrize('moments, words', [
    ([0, 1, 2], 'are stamped 0'), ([5, 5, 5, 6], '3 of its 4 steps have the same frame'),
    ([1, 1, 2, 2, 3, 3], ''), ([1], ''), (range(1, 60), '')])
def test_stamps_that_cannot_each_show_a_step(moments, words):
    found = one_frame(list(moments))
    assert words in found if words else not found
