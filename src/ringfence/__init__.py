"""Rings of privilege and rewindable decoding for open-weight chat models."""
