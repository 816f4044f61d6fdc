"""Where fixtures come from, and an environment in which nothing of the developer's own counts."""

from __future__ import annotations

import os

import pytest

# what the developer has set for his own work is no business of the tests
for name in [name for name in os.environ if name.startswith(("PG", "KEBOOLA_", "POSTGRES_"))]:
    del os.environ[name]
# nor is his keyring; asking it costs every process of a test 0.2 s
os.environ["PYTHON_KEYRING_BACKEND"] = "keyring.backends.fail.Keyring"

# what a helper asserts is shown as what a test asserts
pytest.register_assert_rewrite("tests.support")
pytest_plugins = (
    "tests.support.databases",
    "tests.support.project",
    "tests.support.checkout",
    "tests.support.roles",
    "tests.support.keyrings",
)
