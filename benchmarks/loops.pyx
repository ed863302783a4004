# cython: language_level=3, boundscheck=False, wraparound=False
"""The "valid" correlation as four loops: what a first compiled version looks like."""

import numpy as np

ctypedef fused number:
    float
    double


def correlate2d(const number[:, ::1] x, const number[:, ::1] w):
    cdef Py_ssize_t height = x.shape[0] - w.shape[0] + 1
    cdef Py_ssize_t width = x.shape[1] - w.shape[1] + 1
    cdef Py_ssize_t r, c, i, j
    cdef number total
    y = np.empty((height, width), np.float32 if number is float else np.float64)
    cdef number[:, ::1] out = y
    for r in range(height):
        for c in range(width):
            total = 0
            for i in range(w.shape[0]):
                for j in range(w.shape[1]):
                    total += w[i, j] * x[r + i, c + j]
            out[r, c] = total
    return y
