"""What `gw-cli verify` asks of a running gateway: checks of what clients see, whoever made it."""
