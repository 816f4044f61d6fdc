"""Schema elt in the database: the SQL that makes it, its installation, whose code a run may call. It knows no job."""
