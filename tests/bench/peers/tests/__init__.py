"""Tests of what decides: `make bench-check`."""
