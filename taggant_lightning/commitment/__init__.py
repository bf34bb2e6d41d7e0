"""Promises that can be checked: streams from a secret, Merkle leaves over bytes, seeds, beacons. It knows no images."""
