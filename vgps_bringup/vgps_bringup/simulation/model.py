"""MJCF of the simulated WidowX 250: the arm, its parallel gripper, a table and a third-person camera.

Link offsets, screw axes and limits are Interbotix's for the ``wx250s``; masses, gains and friction are ours (measured
to track BridgeData's 5 Hz steps and to make an off-centre grasp fail). Looks are primitive geoms only.
"""

import mujoco

from vgps_bringup.simulation.appearance import TABLE_TEXTURES, texture_png

JOINT_NAMES = ('waist', 'shoulder', 'elbow', 'forearm_roll', 'wrist_angle', 'wrist_rotate')
JOINT_LIMITS = (  # rad, from the driver's RobotInfo
    (-3.14158, 3.14158), (-1.88496, 1.98968), (-2.14675, 1.60570),
    (-3.14158, 3.14158), (-1.74533, 2.14675), (-3.14158, 3.14158),
)
START_JOINTS = (0.0, 0.02201199, 0.18310092, 0.0, 1.36568341, 0.0)  # rad; gripper at (0.3, 0, 0.15) m, pointing down
FINGER_CLOSED, FINGER_OPEN = 0.010, 0.035  # m from the centre; BridgeData's openness 0 and 1

# Hidden collision shapes are group 3, all that a camera sees is group 2. Looks that stick out of a body's collision
# shapes are in a child body of their own: mj_multiRay skips a body by the bounds of its colliding geoms alone.
_DEFAULTS = """
<default>
  <geom group="2" solref="0.006 1" solimp="0.95 0.99 0.001"/>
  <default class="looks"><geom contype="0" conaffinity="0" mass="0"/></default>
  <default class="link"><geom contype="0" conaffinity="0" material="bracket"/></default>
  <default class="palm"><geom contype="2" conaffinity="1"/></default>
  <default class="pad"><geom group="3" contype="2" conaffinity="1" condim="4" priority="1"
    friction="0.35 0.002 0.0001"/></default>
  <default class="object"><geom contype="1" conaffinity="3" condim="6" friction="0.8 0.004 0.008"/></default>
  <default class="fixed"><geom contype="1" conaffinity="2" friction="0.8 0.004 0.008"/></default>
</default>"""

# Every actuated joint ends in the frame that the published screw axes describe: axis and offset are exact.
_ARM = """
<body name="base_link" gravcomp="1">
  <geom class="link" type="box" size="0.075 0.055 0.012" pos="-0.02 0 0.012" material="plastic" mass="0.5"/>
  <geom class="looks" type="box" size="0.045 0.040 0.022" pos="-0.005 0 0.040" material="servo"/>
  <body name="waist" pos="0 0 0.072" gravcomp="1">
    <joint name="waist" axis="0 0 1" range="-3.14158 3.14158"/>
    <geom class="link" type="cylinder" size="0.038 0.010" pos="0 0 -0.006" mass="0.3"/>
    <geom class="looks" type="box" size="0.022 0.034 0.020" pos="0 0 0.030" material="servo"/>
    <geom class="link" type="box" size="0.020 0.004 0.028" pos="0 0.040 0.026" mass="0.1"/>
    <geom class="link" type="box" size="0.020 0.004 0.028" pos="0 -0.040 0.026" mass="0.1"/>
    <body name="shoulder" pos="0 0 0.03865" gravcomp="1">
      <joint name="shoulder" axis="0 1 0" range="-1.88496 1.98968"/>
      <geom class="looks" type="cylinder" size="0.018 0.036" euler="1.5708 0 0" material="trim"/>
      <geom class="link" type="box" size="0.012 0.018 0.105" pos="0.005 0 0.125" mass="0.4"/>
      <geom class="looks" type="box" size="0.020 0.026 0.026" pos="0 0 0.030" material="servo"/>
      <geom class="link" type="box" size="0.034 0.018 0.012" pos="0.027 0 0.235" mass="0.1"/>
      <body name="elbow" pos="0.04975 0 0.25" gravcomp="1">
        <joint name="elbow" axis="0 1 0" range="-2.14675 1.60570"/>
        <geom class="looks" type="cylinder" size="0.017 0.032" euler="1.5708 0 0" material="trim"/>
        <geom class="looks" type="box" size="0.024 0.024 0.019" pos="0.020 0 0" material="servo"/>
        <geom class="link" type="capsule" size="0.014" fromto="0.045 0 0 0.150 0 0" mass="0.2"/>
        <body name="forearm_roll" pos="0.175 0 0" gravcomp="1">
          <joint name="forearm_roll" axis="1 0 0" range="-3.14158 3.14158"/>
          <geom class="looks" type="cylinder" size="0.021 0.014" pos="-0.012 0 0" euler="0 1.5708 0" material="trim"/>
          <geom class="link" type="box" size="0.026 0.017 0.017" pos="0.028 0 0" material="servo" mass="0.12"/>
          <geom class="looks" type="box" size="0.022 0.003 0.016" pos="0.062 0.025 0" material="bracket"/>
          <geom class="looks" type="box" size="0.022 0.003 0.016" pos="0.062 -0.025 0" material="bracket"/>
          <body name="wrist_angle" pos="0.075 0 0" gravcomp="1">
            <joint name="wrist_angle" axis="0 1 0" range="-1.74533 2.14675"/>
            <geom class="looks" type="cylinder" size="0.014 0.028" euler="1.5708 0 0" material="trim"/>
            <geom class="link" type="box" size="0.024 0.018 0.017" pos="0.024 0 0" material="servo" mass="0.12"/>
            <body name="wrist_rotate" pos="0.065 0 0" gravcomp="1">
              <joint name="wrist_rotate" axis="1 0 0" range="-3.14158 3.14158"/>
              <geom class="looks" type="cylinder" size="0.018 0.008" pos="-0.006 0 0" euler="0 1.5708 0"
                material="trim"/>
              <geom class="link" type="box" size="0.020 0.021 0.016" pos="0.022 0 0" material="servo" mass="0.1"/>
              <body name="ee_arm_link" pos="0.043 0 0" gravcomp="1">
                <geom class="palm" type="box" size="0.007 0.052 0.011" pos="0.004 0 0" material="plastic" mass="0.05"/>
                <body name="fingers" pos="0.023 0 0" gravcomp="1">
                  <site name="ee_gripper_link" pos="0.027575 0 0" size="0.004" group="4"/>
                  <body name="left_finger" gravcomp="1">
                    <joint name="left_finger" type="slide" axis="0 1 0" range="0.010 0.037" damping="10"
                      armature="0.15"/>
                    <body>
                      <geom class="looks" type="box" size="0.012 0.006 0.010" pos="-0.004 0.006 0" material="plastic"/>
                      <geom class="looks" type="box" size="0.025 0.0035 0.009" pos="0.027 0.0015 0" material="plastic"/>
                      <geom class="looks" type="box" size="0.021 0.0035 0.010" pos="0.0300 -0.0065 0" material="pad"/>
                    </body>
                    <geom name="left_pad" class="pad" type="capsule" size="0.006"
                      fromto="0.012 -0.004 0 0.045 -0.004 0" mass="0.02"/>
                  </body>
                  <body name="right_finger" gravcomp="1">
                    <joint name="right_finger" type="slide" axis="0 -1 0" range="0.010 0.037" damping="10"
                      armature="0.15"/>
                    <body>
                      <geom class="looks" type="box" size="0.012 0.006 0.010" pos="-0.004 -0.006 0" material="plastic"/>
                      <geom class="looks" type="box" size="0.025 0.0035 0.009" pos="0.027 -0.0015 0"
                        material="plastic"/>
                      <geom class="looks" type="box" size="0.021 0.0035 0.010" pos="0.0300 0.0065 0" material="pad"/>
                    </body>
                    <geom name="right_pad" class="pad" type="capsule" size="0.006"
                      fromto="0.012 0.004 0 0.045 0.004 0" mass="0.02"/>
                  </body>
                </body>
              </body>
            </body>
          </body>
        </body>
      </body>
    </body>
  </body>
</body>"""

_ACTUATORS = """
<actuator>
  <position joint="waist" kp="300" kv="16"/>
  <position joint="shoulder" kp="400" kv="22"/>
  <position joint="elbow" kp="320" kv="18"/>
  <position joint="forearm_roll" kp="100" kv="5"/>
  <position joint="wrist_angle" kp="100" kv="5"/>
  <position joint="wrist_rotate" kp="80" kv="4"/>
  <position joint="left_finger" kp="1000" forcerange="-8 8"/>
</actuator>
<equality><joint joint1="right_finger" joint2="left_finger" polycoef="0 1 0 0 0"/></equality>"""


def build(scene: str, meshes: str = '') -> mujoco.MjModel:
    """Return the compiled world: arm, table and camera, plus the bodies in `scene` and its `meshes` (MJCF text)."""
    textures = ''.join(
        f'<texture name="{name}" type="2d" file="{name}.png"/>'
        f'<material name="table_{name}" texture="{name}" texrepeat="2 2" specular="0" shininess="0"/>'
        for name in TABLE_TEXTURES)
    xml = f"""
<mujoco model="wx250s">
  <compiler angle="radian" autolimits="true"/>
  <option timestep="0.004" integrator="implicitfast" cone="elliptic" impratio="10" iterations="50"/>
  <visual>
    <global offwidth="1280" offheight="1280"/>
    <quality shadowsize="0" offsamples="4"/>
    <headlight ambient="0.42 0.42 0.42" diffuse="0.18 0.18 0.18" specular="0 0 0"/>
    <map znear="0.02" zfar="40"/>
  </visual>
  {_DEFAULTS}
  <asset>
    <texture name="sky" type="skybox" builtin="gradient" rgb1="0.75 0.78 0.80" rgb2="0.60 0.63 0.66" width="64"
      height="384"/>
    {textures}
    {meshes}
    <material name="servo" rgba="0.10 0.10 0.11 1" specular="0.2" shininess="0.3"/>
    <material name="bracket" rgba="0.24 0.25 0.27 1" specular="0.3" shininess="0.4"/>
    <material name="trim" rgba="0.48 0.49 0.51 1" specular="0.3" shininess="0.4"/>
    <material name="plastic" rgba="0.13 0.13 0.14 1" specular="0.1" shininess="0.2"/>
    <material name="pad" rgba="0.80 0.82 0.84 1" specular="0" shininess="0"/>
    <material name="floor" rgba="0.50 0.51 0.53 1" specular="0" shininess="0"/>
  </asset>
  <worldbody>
    <light name="lamp" directional="true" pos="0.2 -0.6 1.5" dir="-0.15 0.45 -1" diffuse="0.55 0.55 0.53"
      specular="0.15 0.15 0.15" castshadow="false"/>
    <light name="window" directional="true" pos="0.8 0.6 1.2" dir="-0.6 -0.3 -1" diffuse="0.22 0.22 0.24"
      specular="0 0 0" castshadow="false"/>
    <geom name="floor" class="looks" type="plane" size="6 6 0.1" pos="0 0 -0.75" material="floor"/>
    <geom name="table" class="fixed" type="box" size="0.45 0.55 0.02" pos="0.30 0 -0.02" material="table_wood"/>
    <camera name="third_person" mode="fixed" pos="0 0 0.4"/>
    {_ARM}
    {scene}
  </worldbody>
  {_ACTUATORS}
</mujoco>"""
    return mujoco.MjModel.from_xml_string(xml, {f'{name}.png': texture_png(name) for name in TABLE_TEXTURES})
