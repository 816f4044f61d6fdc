"""The page: one HTML file with the answers to the questions in report/questions, the runs and the tables.

It stands between cli and run, and reads the database only. Nothing else of lib needs it or its packages.
"""
