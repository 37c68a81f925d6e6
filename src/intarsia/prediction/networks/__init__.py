"""What computes the logits of an image: windows of it, in torch or by an engine."""
