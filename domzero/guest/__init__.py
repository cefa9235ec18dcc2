"""The front door for programs: a guest as an object. `domzero` gives its names (docs/guide/python.md)."""
