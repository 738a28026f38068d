import pytest


@pytest.fixture(scope="session")
def dictionary(digits_dictionary):
    """The dictionary of `words`."""
    return digits_dictionary
