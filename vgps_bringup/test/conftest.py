# Its place puts this folder on the path: `evaluation_bags` serves the tests of several rooms.
