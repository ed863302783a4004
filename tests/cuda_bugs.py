"""Thirty kernels with a mistake each, for the emulator to find.

With the macro BUG a kernel is wrong, without it right, and nothing else differs. All
have the signature `bug_i(const float* x, float* y, int n)` and run on x = 0, 1, 2, ...

`caught` says which of the four modes raise the alarm, and the tests hold it to that: a
kernel that fewer modes catch is a loss, one that more catch is news for the table.

    error     a launch in this process raises KernelError
    values    the numbers contain NaN or depend on the order of threads and blocks
    address   AddressSanitizer    thread    ThreadSanitizer
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np


class Bug(NamedTuple):
    """A kernel, how it is launched, which modes catch it, and what it should give."""

    source: str
    caught: str
    want: Callable = np.copy  # y of the right kernel, from x
    grid: int = 1
    block: int = 64
    shared_bytes: int = 0
    before: str = ""  # what stands in front of the kernel

    def text(self, kernel: str) -> str:
        head = f'extern "C" __global__ void {kernel}(const float* x, float* y, int n)'
        body = f"{{\n    const int t = threadIdx.x;\n{self.source}}}\n"
        return f"{self.before}\n{head}\n{body}"


def reverse(x):
    return x[::-1].copy()


BUGS = {
    # barriers ----------------------------------------------------------------------
    "a barrier is missing before shared memory is read": Bug(
        """
    __shared__ float s[64];
    s[t] = x[t];
#ifndef BUG
    __syncthreads();
#endif
    y[t] = s[63 - t];
""",
        "values thread",
        reverse,
    ),
    "a barrier is missing before shared memory is used again": Bug(
        """
    __shared__ float s[64];
    float sum = 0;
    for (int round = 0; round < 3; ++round) {
        s[t] = x[t] + round;
        __syncthreads();
        sum += s[63 - t];
#ifndef BUG
        __syncthreads();
#endif
    }
    y[t] = sum;
""",
        "values thread",
        lambda x: 3 * x[::-1] + 3,
    ),
    "half of the threads skip a barrier": Bug(
        """
#ifdef BUG
    if (t < 32)
#endif
        __syncthreads();
    y[t] = x[t];
""",
        "error address thread",
    ),
    "a thread returns before a barrier": Bug(
        """
#ifdef BUG
    if (t >= 60) return;
#endif
    __syncthreads();
    y[t] = x[t];
""",
        "error address thread",
    ),
    "a loop with a barrier runs longer for some threads": Bug(
        """
#ifdef BUG
    const int rounds = 1 + t / 32;
#else
    const int rounds = 2;
#endif
    for (int round = 0; round < rounds; ++round) __syncthreads();
    y[t] = x[t];
""",
        "error address thread",
    ),
    "two branches have a barrier each": Bug(
        """
#ifdef BUG
    if (t < 32) {
        __syncthreads();
    } else {
        __syncthreads();
    }
#else
    __syncthreads();
#endif
    y[t] = x[t];
""",
        "error address thread",
    ),
    # memory outside ----------------------------------------------------------------
    "a read one element behind an argument": Bug(
        """
#ifdef BUG
    y[t] = x[t + 1];
#else
    y[t] = t + 1 < n ? x[t + 1] : 0;
#endif
""",
        "values address",
        lambda x: np.append(x[1:], np.float32(0)),
    ),
    "a read one element before an argument": Bug(
        """
#ifdef BUG
    y[t] = x[t - 1];
#else
    y[t] = t > 0 ? x[t - 1] : 0;
#endif
""",
        "values address",
        lambda x: np.append(np.float32(0), x[:-1]),
    ),
    "a read behind an argument that leaves no trace": Bug(
        """
#ifdef BUG
    y[t] = x[t + 1] < 0 ? 1 : x[t];
#else
    y[t] = x[t];
#endif
""",
        "address",
    ),
    "a write one element behind an argument": Bug(
        """
#ifdef BUG
    y[t + 1] = x[t];
#else
    y[(t + 1) % n] = x[t];
#endif
""",
        "error address",
        lambda x: np.roll(x, 1),
    ),
    "a read far outside": Bug(
        """
#ifdef BUG
    y[t] = x[t + (1ll << 40)];
#else
    y[t] = x[t];
#endif
""",
        "error address thread",
    ),
    "a write to an argument that is const": Bug(
        """
#ifdef BUG
    ((float*)x)[t] = 1;
#endif
    y[t] = 1;
""",
        "error address thread",
        np.ones_like,
    ),
    "a row of a shared array overflows into the next": Bug(
        """
    __shared__ float s[8][8];
    const int r = t / 8, c = t % 8;
    s[r][c] = x[t];
    __syncthreads();
#ifdef BUG
    y[t] = s[r][c + 1];
#else
    y[t] = s[r][(c + 1) % 8];
#endif
""",
        "error address thread",
        lambda x: np.roll(x.reshape(8, 8), -1, 1).ravel(),
    ),
    "a write behind a shared array, through a pointer": Bug(
        """
    __shared__ float s[64];
    float* p = s;
#ifdef BUG
    p[t + 1] = x[t];
#else
    p[t] = x[t];
#endif
    y[t] = x[t];
""",
        "error address thread",
    ),
    "less dynamic shared memory than is used": Bug(
        """
    extern __shared__ float s[];
#ifdef BUG
    s[t + 64] = x[t];
    y[t] = s[t + 64];
#else
    s[t] = x[t];
    y[t] = s[t];
#endif
""",
        "error address thread",
        shared_bytes=256,
    ),
    "shared memory is read that nobody wrote": Bug(
        """
    __shared__ float s[65];
    s[t] = x[t];
#ifndef BUG
    if (t == 0) s[64] = 0;
#endif
    __syncthreads();
    y[t] = s[t + 1];
""",
        "values",
        lambda x: np.append(x[1:], np.float32(0)),
    ),
    "more static shared memory than there is": Bug(
        """
#ifdef BUG
    __shared__ float s[12289];
#else
    __shared__ float s[12288];
#endif
    s[t] = x[t];
    y[t] = s[t];
""",
        "error address thread",
    ),
    # races -------------------------------------------------------------------------
    "threads add to one place without an atomic": Bug(
        """
#ifdef BUG
    y[0] += 1;
#else
    atomicAdd(y, 1.0f);
#endif
""",
        "thread",
        lambda x: np.append(np.float32(64), np.zeros(63, np.float32)),
    ),
    "blocks add to one place without an atomic": Bug(
        """
#ifdef BUG
    y[t] += x[t];
#else
    atomicAdd(y + t, x[t]);
#endif
""",
        "thread",
        lambda x: 4 * x,
        grid=4,
    ),
    "a block reads what another one writes": Bug(
        """
    const int i = blockIdx.x * blockDim.x + t;
#ifdef BUG
    y[i] = x[i];
    __syncthreads();
    if (t == 0) y[i] += y[(i + 16) % n];
#else
    y[i] = x[i] + (t == 0 ? x[(i + 16) % n] : 0);
#endif
""",
        "values thread",
        lambda x: x + np.where(np.arange(64) % 16, 0, np.roll(x, -16)),
        grid=4,
        block=16,
    ),
    "the last block adds up what others wrote, without a fence": Bug(
        """
    __shared__ bool last;
    y[blockIdx.x * 16 + t] = 1;
#ifndef BUG
    __threadfence();
#endif
    __syncthreads();
    if (t == 0) last = atomicAdd(&arrived, 1) == (int)gridDim.x - 1;
    __syncthreads();
    if (!last || t > 0) return;
    float sum = 0;
    for (int k = 0; k < n; ++k) sum += y[k];
    y[0] = sum;
    atomicExch(&arrived, 0);
""",
        "thread",
        lambda x: np.append(np.float32(64), np.ones(63, np.float32)),
        grid=4,
        block=16,
        before="__device__ int arrived = 0;",
    ),
    "the last warp counts on running in step": Bug(
        """
    __shared__ float s[64];
    s[t] = x[t];
    __syncthreads();
    if (t < 32)
        for (int d = 32; d > 0; d /= 2) {
            const float other = s[t + d];
#ifndef BUG
            __syncwarp();
#endif
            s[t] += other;
#ifndef BUG
            __syncwarp();
#endif
        }
    __syncthreads();
    y[t] = s[0];
""",
        "values thread",
        lambda x: np.full_like(x, x.sum()),
    ),
    # warps -------------------------------------------------------------------------
    "a shuffle in a branch that not all lanes take": Bug(
        """
    float v = x[t];
#ifdef BUG
    if (t < 16) v += __shfl_xor_sync(0xffffffffu, v, 1);
#else
    if (t < 16) v += __shfl_xor_sync(0xffffu, v, 1);
#endif
    __syncwarp();
    y[t] = v;
""",
        "error address thread",
        lambda x: np.where(np.arange(64) < 16, x + x[np.arange(64) ^ 1], x),
    ),
    "a shuffle reads a lane that has returned": Bug(
        """
#ifdef BUG
    if (t % 32 == 31) return;
#endif
    const float v = __shfl_down_sync(0xffffffffu, x[t], 1);
    y[t] = v;
""",
        "error address thread",
        lambda x: np.where(np.arange(64) % 32 == 31, x, np.roll(x, -1)),
    ),
    "a mask does not name the lane that calls": Bug(
        """
#ifdef BUG
    const unsigned mask = 0x7fffffffu;
#else
    const unsigned mask = 0xffffffffu;
#endif
    y[t] = __shfl_sync(mask, x[t], 0);
""",
        "error address thread",
        lambda x: np.repeat(x[::32], 32),
    ),
    "half a warp waits at a vote, half at a shuffle": Bug(
        """
    float v = x[t];
#ifdef BUG
    if (t % 32 < 16)
        v += __any_sync(0xffffffffu, v > 0) ? 1 : 0;
    else
        v = __shfl_sync(0xffffffffu, v, 31);
#endif
    y[t] = v;
""",
        "error address thread",
    ),
    "a thread waits for a signal that never comes": Bug(
        """
    __shared__ int ready;
    if (t == 0) ready = 0;
    __syncthreads();
#ifndef BUG
    if (t == 63) atomicExch(&ready, 1);
#endif
    if (t == 0)
        while (atomicAdd(&ready, 0) == 0) __nanosleep(100);
    y[t] = x[t];
""",
        "error address thread",
    ),
    # arithmetic and types ------------------------------------------------------------
    "the product of two ints exceeds an int": Bug(
        """
    const int row = 65536 + t;
#ifdef BUG
    const long long i = row * 65536;
#else
    const long long i = (long long)row * 65536;
#endif
    y[t] = i > 0 ? x[t] : 0;
""",
        "error address thread",
    ),
    "an integer is divided by zero": Bug(
        """
#ifdef BUG
    const int group = t / (n - 64);
#else
    const int group = t / n;
#endif
    y[t] = x[t] + group;
""",
        "error address thread",
    ),
    "a shift by the width of an int": Bug(
        """
#ifdef BUG
    const unsigned mask = (1u << (n / 2)) - 1;
#else
    const unsigned mask = 0xffffffffu >> (32 - n / 2);
#endif
    y[t] = x[t] + (mask != 0xffffffffu);
""",
        "error address thread",
    ),
    "four floats are read at an address that is no multiple of 16": Bug(
        """
#ifdef BUG
    const int first = 1;
#else
    const int first = 4;
#endif
    const float4 v = *(const float4*)(x + first);
    y[t] = v.x;
""",
        "error address thread",
        lambda x: np.full_like(x, 4),
    ),
}

KERNELS = {name: f"bug_{i}" for i, name in enumerate(BUGS)}
SOURCE = "\n".join(bug.text(KERNELS[name]) for name, bug in BUGS.items())
