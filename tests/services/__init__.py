"""Real servers for the tests: each on a free port, in a directory of its own, surely stopped."""
