"""Camera images without a display: OpenGL through EGL, else OSMesa, else ray casting on the CPU.

The three draw the same scene with the same lamps. No shadows: they cost four times as much and tell nothing new.
"""

import ctypes
import ctypes.util
import functools
import importlib
import logging
import os
import subprocess
import sys
from typing import Protocol

import mujoco
import numpy as np

BACKENDS = ('egl', 'osmesa', 'rays')  # best first
_PACKAGES = {'egl': 'libegl1 libegl-mesa0 libgl1-mesa-dri', 'osmesa': 'libosmesa6'}
_LIBRARIES = {'egl': 'EGL', 'osmesa': 'OSMesa'}
VISIBLE_GROUPS = (1, 1, 1, 0, 0, 0)
_PROBE_TIMEOUT = 30  # s; a broken driver may hang
_PROBE = """
import mujoco
from vgps_bringup.simulation.rendering import GlRenderer
model = mujoco.MjModel.from_xml_string(
    '<mujoco><worldbody><camera name="third_person" pos="0 0 2"/><geom size="1" rgba="1 1 1 1"/></worldbody></mujoco>')
data = mujoco.MjData(model)
mujoco.mj_forward(model, data)
assert GlRenderer(model, (16, 16), {name!r}).render(data).max() > 0
"""
_log = logging.getLogger(__name__)


class RenderingError(RuntimeError):
    """A renderer was asked for by name and cannot work here."""


class Renderer(Protocol):
    """Draws the camera `third_person` of one model."""

    name: str

    def render(self, data: mujoco.MjData) -> np.ndarray:
        """Return (H, W, 3) uint8 RGB of the state in `data`; always from the thread of the first call."""
        ...

    def close(self) -> None:
        """Free what was opened."""
        ...


def make_renderer(model: mujoco.MjModel, size: tuple[int, int], name: str = 'auto') -> Renderer:
    """Return a renderer of (height, width) pixels: the one named, or for 'auto' the best that works here.

    Raises:
        RenderingError: the one named does not work; the message says which Debian packages it needs.
        ValueError: no renderer of this name.
    """
    if name != 'auto' and name not in BACKENDS:
        raise ValueError(f'there is no renderer {name!r}; known are auto, {", ".join(BACKENDS)}')
    wanted = BACKENDS if name == 'auto' else (name,)
    reasons = []
    for backend in wanted:
        if backend == 'rays':
            if reasons:
                _log.warning('no OpenGL here (%s): the camera image is rendered by ray casting, about ten times slower',
                             '; '.join(reasons))
            from vgps_bringup.simulation.rays import RayRenderer
            return RayRenderer(model, size)
        problem = probe(backend)
        if not problem:
            return GlRenderer(model, size, backend)
        reasons.append(problem)
    raise RenderingError(f'renderer {name!r} does not work here: {reasons[0]}')


@functools.cache
def probe(name: str) -> str:
    """Return why OpenGL through `name` does not work here, empty if it does.

    Drivers may crash or hang, so a short-lived process draws the first picture.
    """
    advice = f'install the Debian packages {_PACKAGES[name]}'
    in_use = os.environ.get('PYOPENGL_PLATFORM', name)
    if in_use != name:
        return f'{name}: this process already uses OpenGL through {in_use}'
    if ctypes.util.find_library(_LIBRARIES[name]) is None:
        return f'{name}: lib{_LIBRARIES[name]} not found, {advice}'
    environment = {**os.environ, 'PYOPENGL_PLATFORM': name, 'MUJOCO_GL': name}
    try:
        done = subprocess.run([sys.executable, '-c', _PROBE.format(name=name)], env=environment, capture_output=True,
                              text=True, timeout=_PROBE_TIMEOUT)
    except subprocess.TimeoutExpired:
        return f'{name}: no image within {_PROBE_TIMEOUT} s, {advice}'
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f'exit code {done.returncode}'])[-1]
        return f'{name}: {last}, {advice}'
    return ''


class GlRenderer:
    """MuJoCo's own OpenGL renderer on an off-screen EGL or OSMesa context."""

    def __init__(self, model: mujoco.MjModel, size: tuple[int, int], name: str):
        self.name = name
        self._model = model
        # Both MuJoCo and PyOpenGL read the environment when the first context is made. Taking the context class from
        # its module avoids MuJoCo's choice at import time, which without a display ends in a broken default.
        os.environ['MUJOCO_GL'] = os.environ['PYOPENGL_PLATFORM'] = name
        height, width = size
        self._gl = importlib.import_module(f'mujoco.{name}').GLContext(width, height)
        self._gl.make_current()
        self._context = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_100.value)
        mujoco.mjr_resizeOffscreen(width, height, self._context)
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN.value, self._context)
        self._scene = mujoco.MjvScene(model, maxgeom=200)
        for flag in (mujoco.mjtRndFlag.mjRND_SHADOW, mujoco.mjtRndFlag.mjRND_REFLECTION, mujoco.mjtRndFlag.mjRND_HAZE):
            self._scene.flags[flag] = 0
        self._option = mujoco.MjvOption()
        self._option.geomgroup[:] = VISIBLE_GROUPS
        self._camera = mujoco.MjvCamera()
        self._camera.type = mujoco.mjtCamera.mjCAMERA_FIXED
        self._camera.fixedcamid = model.camera('third_person').id
        self._viewport = mujoco.MjrRect(0, 0, width, height)
        self._pixels = np.empty((height, width, 3), np.uint8)

    def render(self, data: mujoco.MjData) -> np.ndarray:
        """Return (H, W, 3) uint8 RGB of the state in `data`."""
        self._gl.make_current()
        mujoco.mjv_updateScene(self._model, data, self._option, None, self._camera,
                               mujoco.mjtCatBit.mjCAT_ALL.value, self._scene)
        mujoco.mjr_render(self._viewport, self._scene, self._context)
        mujoco.mjr_readPixels(self._pixels, None, self._viewport, self._context)
        return self._pixels[::-1].copy()  # OpenGL's first row is the lowest

    def close(self) -> None:
        """Free the context."""
        if self._gl is not None:
            self._gl.make_current()
            self._context.free()
            self._gl.free()
            self._gl = None
