"""Builds generated C for real devices and runs it under CPU emulation."""
