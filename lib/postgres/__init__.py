"""General PostgreSQL functions: connections, transactions, the run lock, blocking sessions, an embedded server.

Depends on settings and secrets, but on no job, script or table of the pipeline.
"""
