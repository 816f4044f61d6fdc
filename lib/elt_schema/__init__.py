"""Schema elt in the database: its SQL, its installation, and whose code a run may call. Depends on no job."""
