"""Tests that need no PostgreSQL and start no process: all of them take seconds."""
