"""Request bytes to model_src to answer bytes, inside a TorchServe worker."""
