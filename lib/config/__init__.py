"""What the user wrote: settings, secrets, the registry of jobs. It knows no server: nothing here connects anywhere."""
