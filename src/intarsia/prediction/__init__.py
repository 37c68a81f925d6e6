"""Prediction: a saved model, any image in, a class map of its own size out."""
