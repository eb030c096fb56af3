from vgps_bringup.system.launch_adapter import launch_description


def generate_launch_description():
    return launch_description('robot')
