"""Training: an explicit loop on Lightning Fabric, exact to resume."""
