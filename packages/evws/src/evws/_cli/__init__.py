"""What ``python -m evws`` does: an interactive client, an echo server, a load test."""
