from glob import glob
from xml.etree import ElementTree

from setuptools import find_packages, setup

setup(
    name='vgps_bringup',
    version=ElementTree.parse('package.xml').findtext('version'),
    description='Launch, configuration, arm, simulated WidowX and evaluation of value-guided policy steering',
    license='Apache-2.0',
    packages=find_packages(exclude=['test']),
    package_data={'vgps_bringup.trials': ['task_lists/*.yaml'], 'vgps_bringup.episode_pages': ['templates/*.html']},
    data_files=[
        ('share/ament_index/resource_index/packages', ['resource/vgps_bringup']),
        ('share/vgps_bringup', ['package.xml']),
        ('share/vgps_bringup/launch', glob('launch/*.py')),
        ('share/vgps_bringup/config', glob('config/*')),
        ('share/vgps_bringup/security', glob('security/*')),
        ('share/vgps_bringup/doc', glob('doc/results.json')),
    ],
    install_requires=[
        'numpy', 'opencv-python', 'mujoco', 'rosbags', 'mcap', 'zstandard', 'lz4', 'pillow', 'packaging',
        'pyyaml', 'matplotlib', 'av', 'scipy', 'pyarrow', 'tqdm', 'tyro', 'jinja2',
    ],
    extras_require={'test': ['pytest'], 'rerun': ['rerun-sdk']},
    zip_safe=True,
    entry_points={'vgps.arms': ['wx250s = vgps_bringup.arm.kinematics:Kinematics'], 'console_scripts': [
        'widowx_node = vgps_bringup.nodes:widowx_node',
        'heartbeat_node = vgps_bringup.nodes:heartbeat_node',
        'decision_image_node = vgps_bringup.nodes:decision_image_node',
        'simulation_node = vgps_bringup.nodes:simulation_node',
        'recorder_node = vgps_bringup.nodes:recorder_node',
        'replay_node = vgps_bringup.nodes:replay_node',
        'vgps-run = vgps_bringup.commands.run:main',
        'vgps-collect = vgps_bringup.simulation.collect:main',
        'vgps-collect-simpler = vgps_bringup.trials.simpler.collect:main',
        'vgps-episode = vgps_bringup.commands.episode:main',
        'vgps-report = vgps_bringup.commands.report:main',
        'vgps-evaluate = vgps_bringup.commands.evaluate:main',
        'vgps-demo = vgps_bringup.commands.demo:main',
        'vgps-critics = vgps_bringup.commands.critics:main',
        'vgps-improvement-experiment = vgps_bringup.commands.improvement_experiment:main',
        'vgps-improve = vgps_bringup.commands.improve:main',
        'vgps-doctor = vgps_bringup.commands.doctor:main',
        'vgps-param = vgps_bringup.commands.without_ros2:parameter_main',
        'vgps-arm = vgps_bringup.commands.without_ros2:arm_main',
        'vgps-topic = vgps_bringup.commands.without_ros2:topic_main',
        'vgps-serve = vgps_bringup.commands.serve:main',
        'vgps-study = vgps_bringup.reproduction.stages:main',
    ]},
)
