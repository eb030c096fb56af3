"""The camera works wherever the machine lets it, shows what matters, and says what is missing."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from vgps_bringup.episode_pages.projection import CameraCalibration
from vgps_bringup.simulation import TASKS, SimulatedWidowX, rendering

needs_opengl = pytest.mark.skipif(bool(rendering.probe('egl') and rendering.probe('osmesa')),
                                  reason='neither EGL nor OSMesa works on this machine')


@pytest.fixture(params=['auto', 'rays'])
def renderer(request):
    return request.param


def test_picture_has_the_size_asked_for(renderer):
    for size in ((64, 64), (120, 160)):
        picture = SimulatedWidowX('put_carrot_on_plate', size, renderer).render()
        assert picture.shape == (*size, 3) and picture.dtype == np.uint8


@pytest.mark.parametrize('task', TASKS)
def test_object_goal_and_fingers_are_visible_at_64_pixels(task, renderer):
    robot = SimulatedWidowX(task, (64, 64), renderer)
    robot.reset(1)
    whole = robot.render().astype(int)
    for bodies in (('object',), ('goal',), ('left_finger', 'right_finger')):
        geoms = [g for g in range(robot.model.ngeom)
                 if any(robot.model.body(robot.model.geom_bodyid[g]).name == b
                        or robot.model.body(robot.model.body_parentid[robot.model.geom_bodyid[g]]).name == b
                        for b in bodies)]
        groups = robot.model.geom_group[geoms].copy()
        robot.model.geom_group[geoms] = 5  # not drawn
        without = robot.render().astype(int)
        robot.model.geom_group[geoms] = groups
        assert (np.abs(whole - without).max(axis=2) > 25).sum() >= 25, bodies


CALIBRATION = CameraCalibration.load(Path(__file__).parents[2] / 'config' / 'simulation_camera.yaml')


def test_calibration_file_says_where_the_object_appears(renderer):
    robot = SimulatedWidowX('stack_green_on_yellow', (128, 128), renderer)
    for seed in range(3):
        robot.reset(seed)
        whole, geom = robot.render().astype(int), robot.model.geom('object').id
        robot.model.geom_group[geom] = 5  # not drawn
        rows, columns = np.nonzero(np.abs(whole - robot.render()).max(axis=2) > 25)
        robot.model.geom_group[geom] = 2
        expected = CALIBRATION.project(robot.oracle.object_position, (128, 128))[0]
        np.testing.assert_allclose([columns.mean(), rows.mean()], expected, atol=2.0)


def test_every_start_of_every_task_is_inside_the_picture():
    for spec in TASKS.values():
        corners = [(x, y, 0.02) for x in spec.object_x for y in spec.object_y]
        corners += [(x, y, 0.0) for x in spec.goal_x for y in spec.goal_y]
        pixels = CALIBRATION.project(corners)
        assert (pixels > 5).all() and (pixels < 251).all()


@needs_opengl
@pytest.mark.parametrize('task', TASKS)
def test_rays_draw_the_same_picture_as_opengl(task):
    opengl, rays = SimulatedWidowX(task, (128, 128)), SimulatedWidowX(task, (128, 128), 'rays')
    for seed in (1, 5):
        opengl.reset(seed)
        rays.reset(seed)
        difference = np.abs(opengl.render().astype(int) - rays.render())
        assert opengl.backend in ('egl', 'osmesa') and rays.backend == 'rays'
        assert difference.mean() < 4 and np.median(difference) <= 1


def test_without_opengl_rays_stand_in_and_the_log_names_the_packages(monkeypatch, caplog):
    monkeypatch.setattr(rendering.ctypes.util, 'find_library', lambda name: None)
    monkeypatch.delenv('PYOPENGL_PLATFORM', raising=False)
    rendering.probe.cache_clear()
    try:
        robot = SimulatedWidowX('put_carrot_on_plate', (32, 32))
        assert robot.render().std() > 10
        assert robot.backend == 'rays'
        assert 'libegl1' in caplog.text and 'libosmesa6' in caplog.text
        with pytest.raises(rendering.RenderingError, match='libosmesa6'):
            SimulatedWidowX('put_carrot_on_plate', (32, 32), 'osmesa').render()
    finally:
        rendering.probe.cache_clear()


@pytest.mark.slow
def test_a_driver_that_crashes_or_hangs_is_only_a_reason(monkeypatch):
    monkeypatch.setattr(rendering.ctypes.util, 'find_library', lambda name: 'libEGL.so.1')
    monkeypatch.delenv('PYOPENGL_PLATFORM', raising=False)
    for source, reason in (('import os; os.abort()', 'exit code'), ('import time; time.sleep(60)', 'no image')):
        rendering.probe.cache_clear()
        monkeypatch.setattr(rendering, '_PROBE', source)
        monkeypatch.setattr(rendering, '_PROBE_TIMEOUT', 3)
        assert reason in rendering.probe('egl') and 'libegl1' in rendering.probe('egl')
    rendering.probe.cache_clear()


def test_an_unknown_renderer_is_refused():
    with pytest.raises(ValueError, match="no renderer 'vulkan'"):
        SimulatedWidowX('put_carrot_on_plate', (32, 32), 'vulkan').render()


@pytest.mark.parametrize('size', [(4, 64), (64, 4000)])
def test_an_impossible_size_is_refused(size):
    with pytest.raises(ValueError, match='8 and 1280 pixels'):
        SimulatedWidowX('put_carrot_on_plate', size)


def test_core_imports_without_ros():
    code = ("import sys\nfor name in ('rclpy', 'vgps_msgs', 'sensor_msgs'): sys.modules[name] = None\n"
            'import vgps_bringup.simulation.collect, vgps_bringup.simulation.camera')
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
