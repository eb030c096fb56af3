"""Render camera images in a thread of their own, so that physics keeps pace with the clock meanwhile."""

import threading
from collections.abc import Callable
from typing import Any

import mujoco
import numpy as np

from vgps_bringup.simulation.rendering import Renderer, make_renderer
from vgps_bringup.simulation.widowx import SimulatedWidowX


class CameraThread:
    """Takes the robot's state when told to and hands the drawn picture on; skips a frame rather than queue it.

    All methods are called by the thread that owns the robot; only `deliver` runs in the drawing thread, which also
    opens and frees the renderer, because an OpenGL context belongs to one thread.
    """

    def __init__(self, robot: SimulatedWidowX, deliver: Callable[[np.ndarray, Any], None],
                 fail: Callable[[Exception], None]):
        """`deliver` gets ((H, W, 3) uint8 RGB, tag); `fail` gets what ended the thread."""
        self._robot, self._deliver, self._fail = robot, deliver, fail
        self._model, self._data, self._tag = None, None, None
        self._wanted, self._idle, self._stop = threading.Event(), threading.Event(), False
        self._idle.set()
        self.backend = ''  # renderer in use, empty before the first picture
        self.skipped = 0  # frames not drawn because the one before was still being drawn
        self._thread = threading.Thread(target=self._run, name='camera', daemon=True)
        self._thread.start()

    def shoot(self, tag: Any) -> None:
        """Ask for a picture of this moment; `tag` comes back with it."""
        if not self._idle.is_set():
            self.skipped += 1
            return
        if self._model is not self._robot.model:
            self._model = self._robot.model
            self._data = mujoco.MjData(self._model)
        mujoco.mj_copyData(self._data, self._model, self._robot.data)
        self._tag = tag
        self._idle.clear()
        self._wanted.set()

    def settle(self) -> None:
        """Wait until nothing is being drawn: the looks of the scene may change then."""
        self._idle.wait()

    def close(self) -> None:
        """End the thread and free the renderer."""
        self._stop = True
        self._wanted.set()
        self._thread.join(timeout=5.0)

    def _run(self) -> None:
        # One renderer for each task seen: OpenGL takes 0.4 s to open, and opening and freeing contexts without end
        # makes the process grow. The model is kept with its renderer, because its identity is the key.
        renderers: dict[int, tuple[mujoco.MjModel, Renderer]] = {}
        try:
            while True:
                self._wanted.wait()
                self._wanted.clear()
                if self._stop:
                    return
                if id(self._model) not in renderers:
                    renderers[id(self._model)] = self._model, make_renderer(self._model, self._robot.image_size,
                                                                            self._robot.renderer)
                renderer = renderers[id(self._model)][1]
                self.backend = renderer.name
                image, tag = renderer.render(self._data), self._tag
                self._idle.set()
                self._deliver(image, tag)
        except Exception as error:
            self._fail(error)
        finally:
            self._idle.set()
            for _, renderer in renderers.values():
                renderer.close()
