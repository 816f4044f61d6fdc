"""Tests that need a real PostgreSQL; the program runs in the process of the test."""
