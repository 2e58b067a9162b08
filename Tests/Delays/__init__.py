"""Races of the server, found by nothing but delays of its calls on the device."""
