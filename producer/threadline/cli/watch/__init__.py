"""`threadline watch`: what has been seen (model, reduce) apart from how it is shown (draw, plain)."""
