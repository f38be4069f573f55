"""System checks; `docs/reference/checks.md` explains each id. `AppConfig.ready` loads them."""
