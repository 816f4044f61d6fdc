"""Loads an export into bronze: which columns, the guards, COPY into staging tables, then staging into bronze.

Uses the interface in `lib.extract`, but no particular source. Runs no SQL script.
"""
