"""ckutils: the code of the book "Where Convolution Kernels Come From"."""
