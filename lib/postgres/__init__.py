"""PostgreSQL as any program needs it: connections, transactions, the run lock, who blocks whom, an embedded server.

It knows settings and secrets, but no job, no script and no table of ours.
"""
