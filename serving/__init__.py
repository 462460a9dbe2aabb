"""From a model directory to a running server: export, archive, launch, call."""
