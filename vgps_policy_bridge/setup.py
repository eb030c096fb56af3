from setuptools import find_packages, setup

setup(
    name='vgps_policy_bridge',
    version='0.1.0',
    description='Generalist policies behind one small interface',
    license='Apache-2.0',
    packages=find_packages(exclude=['test']),
    data_files=[
        ('share/ament_index/resource_index/packages', ['resource/vgps_policy_bridge']),
        ('share/vgps_policy_bridge', ['package.xml']),
    ],
    install_requires=['numpy', 'msgpack>=1.0', 'websockets>=12.0', 'pyyaml'],
    extras_require={'test': ['pytest']},
    zip_safe=True,
    entry_points={
        'console_scripts': [
            'policy_node = vgps_policy_bridge.policy_node:main',
            'vgps-benchmark-policy = vgps_policy_bridge.benchmark:main',
            'vgps-policy-server = vgps_policy_bridge.server.server:main',
            'vgps-train-policy = vgps_policy_bridge.policies.small.train:main',
        ],
        'vgps.policies': [
            'binned = vgps_policy_bridge.policies.small.policy:binned',
            'flow = vgps_policy_bridge.policies.small.policy:flow',
            'openvla = vgps_policy_bridge.policies.openvla:OpenVLAPolicy',
            'random-policy = vgps_policy_bridge.policies.random_policy:RandomPolicy',
            'server = vgps_policy_bridge.policies.server_client:ServerPolicy',
        ],
    },
)
