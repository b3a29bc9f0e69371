"""Values kept beside the tests."""
