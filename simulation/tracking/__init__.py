"""Telling TensorBoard or MLflow how a run goes."""
