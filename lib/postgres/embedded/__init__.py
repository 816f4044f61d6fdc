"""A PostgreSQL that runs from a Python package: its programs, its folder, its start and stop. It knows no database."""
