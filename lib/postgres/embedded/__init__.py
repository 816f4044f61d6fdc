"""A PostgreSQL server from a Python package: its programs, its folder, start and stop. Opens no database session."""
