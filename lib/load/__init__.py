"""Rows of an export into bronze: the columns that a table asks for, guards, COPY into staging, staging into bronze.

It knows the border of `extract`, but no kind of source; it runs no SQL script.
"""
