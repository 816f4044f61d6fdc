"""Imports the fixtures, and clears the environment of the developer's own settings."""

from __future__ import annotations

import os

import pytest

# settings of the developer must not change the tests
for name in [name for name in os.environ if name.startswith(("PG", "KEBOOLA_", "POSTGRES_"))]:
    del os.environ[name]
# nor must his keyring; asking it would cost each process 0.2 s
os.environ["PYTHON_KEYRING_BACKEND"] = "keyring.backends.fail.Keyring"

# pytest explains failed asserts in helpers, too
pytest.register_assert_rewrite("tests.support")
pytest_plugins = (
    "tests.support.databases",
    "tests.support.project",
    "tests.support.checkout",
    "tests.support.roles",
    "tests.support.keyrings",
)
