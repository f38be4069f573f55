"""What things cost on this machine: run by hand with `make bench`, never by pytest."""
