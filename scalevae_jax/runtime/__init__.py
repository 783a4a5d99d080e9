"""Devices, processes, storage, the command line, the console, signals."""
