"""What every test of every package runs with; read before any of them imports rclpy, torch or numpy."""

import os

# Away from whatever robot runs on this network. Every process that runs tests has a DDS domain of its own, a worker of
# pytest-xdist too: live tests may run beside each other.
os.environ['ROS_AUTOMATIC_DISCOVERY_RANGE'] = 'LOCALHOST'
if os.environ.get('ROS_DISTRO') == 'humble':  # later distributions warn in every node's log
    os.environ['ROS_LOCALHOST_ONLY'] = '1'
else:
    os.environ.pop('ROS_LOCALHOST_ONLY', None)
os.environ['ROS_DOMAIN_ID'] = str(1 + os.getpid() % 200)
os.environ['ROS_PYTHON_CHECK_FIELDS'] = '1'  # as strict as Humble, which checks the type of every field
os.environ.setdefault('OMP_NUM_THREADS', '1')  # tests run beside each other: more threads would wait for a core
os.environ.setdefault('OPENBLAS_NUM_THREADS', '1')
