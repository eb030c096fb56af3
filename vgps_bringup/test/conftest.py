# Its place puts this folder on the path: `evaluation_bags` serves the tests of several rooms.


def pytest_configure(config):
    config.addinivalue_line('markers', 'slow: a minute or more')
