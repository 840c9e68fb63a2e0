"""The whole product on one machine, from pip's wheels: ``python -m ops.local --help``."""
