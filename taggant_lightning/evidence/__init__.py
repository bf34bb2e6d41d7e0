"""The record of a test."""
