"""TIFFs: beyond what Pillow keeps whole, by windows, and with coordinates."""
