"""Reading the configuration file: plain values in, a `Config` or every problem at once out."""
