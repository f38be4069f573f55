"""An application with users whose primary keys are no numbers, for `AUTH_USER_MODEL`."""
