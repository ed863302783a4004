"""The same operation in ckutils and in what one would use instead: `make bench`."""
