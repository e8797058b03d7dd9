"""The gate: refuses what does not look like a frontal chest X-ray; fitted where one trains."""
