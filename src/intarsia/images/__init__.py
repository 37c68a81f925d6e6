"""Images and masks as NumPy arrays, in and out; no models here."""
