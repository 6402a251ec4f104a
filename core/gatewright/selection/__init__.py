"""Which variant answers: token estimates as intervals, and the smallest context that holds the request."""
