"""This machine: configuration files, engine processes, the engine host and its clients."""
