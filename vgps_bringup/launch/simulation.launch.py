from vgps_bringup.launch_adapter import launch_description


def generate_launch_description():
    return launch_description('simulation')
