"""Right kernels that make an emulator's life hard: none may raise an alarm.

All have the signature `right_i(const float* x, float* y, int n)`; x = 0, 1, ... n - 1,
and y, of the same size, starts at 0.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np


class Right(NamedTuple):
    """A kernel, how it is launched, and what it should give."""

    source: str
    want: Callable  # y from x
    n: int = 64
    grid: tuple[int, ...] = (1,)
    block: tuple[int, ...] = (64,)
    shared_bytes: int = 0
    before: str = ""  # what stands in front of the kernel

    def text(self, kernel: str) -> str:
        head = f'extern "C" __global__ void {kernel}(const float* x, float* y, int n)'
        return f"{self.before}\n{head}\n{{{self.source}}}\n"


def blocks_of(size: int, function: Callable) -> Callable:
    """y from x if each block of threads works on its own part."""
    return lambda x: np.concatenate([function(part) for part in x.reshape(-1, size)])


RIGHT = {
    "1024 threads add up by shuffles, then by shared memory, three times": Right(
        """
    __shared__ float sums[32];
    const int t = threadIdx.x, i = blockIdx.x * blockDim.x + t;
    float all = 0;
    for (int round = 0; round < 3; ++round) {
        float sum = x[i];
        #pragma unroll
        for (int d = 16; d > 0; d /= 2) sum += __shfl_down_sync(0xffffffffu, sum, d);
        if (t % 32 == 0) sums[t / 32] = sum;
        __syncthreads();
        if (t < 32) {
            sum = sums[t];
            for (int d = 16; d > 0; d /= 2) sum += __shfl_xor_sync(~0u, sum, d);
            sums[t] = sum;  // all lanes hold the total
        }
        __syncthreads();
        all += sums[t % 32];
        __syncthreads();
    }
    y[i] = all;
""",
        blocks_of(1024, lambda part: np.full(1024, 3 * part.sum(), np.float32)),
        n=2048,
        grid=(2,),
        block=(1024,),
    ),
    "a grid and blocks of three axes": Right(
        """
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    const int j = blockIdx.y * blockDim.y + threadIdx.y;
    const int k = blockIdx.z * blockDim.z + threadIdx.z;
    const int at = (k * gridDim.y * blockDim.y + j) * gridDim.x * blockDim.x + i;
    __shared__ float corner;
    if (threadIdx.x + threadIdx.y + threadIdx.z == 0) corner = x[at];
    __syncthreads();
    y[at] = x[at] + (corner >= 0 ? 1 : 0);
""",
        lambda x: x + 1,
        n=8 * 6 * 6,
        grid=(2, 3, 2),
        block=(4, 2, 3),
    ),
    "half warps shuffle in two branches, with masks of their own": Right(
        """
    const int t = threadIdx.x;
    float v = x[t];
    if (t % 32 < 16)
        v = __shfl_xor_sync(0x0000ffffu, v, 1, 16);
    else
        v = __shfl_up_sync(0xffff0000u, v, 3, 16);
    y[t] = v;
""",
        lambda x: np.where(
            x % 32 < 16, x.astype(int) ^ 1, np.where(x % 16 < 3, x, x - 3)
        ),
    ),
    "a block that ends in half a warp": Right(
        """
    const int t = threadIdx.x;
    float v = x[t];
    for (int d = 1; d < 16; d *= 2) v += __shfl_xor_sync(0xffffffffu, v, d);
    __syncwarp();
    y[t] = v;
""",
        blocks_of(16, lambda part: np.full_like(part, part.sum())),
        n=48,
        block=(48,),
    ),
    "lanes return one after the other while the rest go on": Right(
        """
    const int t = threadIdx.x, lane = t % 32;
    __shared__ float s[64];
    s[t] = x[t];
    for (int round = 0; round < 32; ++round) {
        if (lane < round) return;
        __syncwarp();
        y[t] = s[t - lane + round];
        __syncwarp();
    }
""",
        lambda x: x,
    ),
    "barriers in a branch that all threads of the block take": Right(
        """
    __shared__ float s[32];
    const int t = threadIdx.x, i = blockIdx.x * 32 + t;
    float v = x[i];
    if (blockIdx.x % 2) {
        s[t] = v;
        __syncthreads();
        v = s[31 - t];
        for (int k = 0; k < (int)blockIdx.x; ++k) __syncthreads();
    }
    y[i] = v;
""",
        lambda x: np.where(
            x.reshape(-1, 32) // 32 % 2, x.reshape(-1, 32)[:, ::-1], x.reshape(-1, 32)
        ).ravel(),
        n=128,
        grid=(4,),
        block=(32,),
    ),
    "the last block to arrive adds up what all wrote": Right(
        """
    __shared__ bool last;
    const int t = threadIdx.x, i = blockIdx.x * 16 + t;
    y[i] = 2 * x[i];
    __threadfence();
    __syncthreads();
    if (t == 0) last = atomicAdd(&arrived, 1) == (int)gridDim.x - 1;
    __syncthreads();
    if (!last || t > 0) return;
    float sum = 0;
    for (int k = 0; k < n; ++k) sum += y[k];
    y[0] = sum;
    arrived = 0;
""",
        lambda x: np.append(np.float32(2 * x.sum()), 2 * x[1:]),
        grid=(4,),
        block=(16,),
        before="__device__ int arrived = 0;",
    ),
    "blocks take a ticket and wait for the one before": Right(
        """
    __shared__ int mine;
    if (threadIdx.x == 0) mine = atomicAdd(&ticket, 1);
    __syncthreads();
    if (threadIdx.x == 0) {
        while (atomicAdd(&turn, 0) < mine) __nanosleep(20);
        y[0] = y[0] / 2 + x[1];
        __threadfence();
        atomicAdd(&turn, 1);
        if (mine == (int)gridDim.x - 1) ticket = turn = 0;
    }
""",
        lambda x: np.append(np.float32(2 - 2**-7), 0 * x[1:]),
        grid=(8,),
        block=(8,),
        before="__device__ int ticket = 0, turn = 0;",
    ),
    "atomics of every kind": Right(
        """
    __shared__ double sum;
    __shared__ int least, most, count;
    __shared__ unsigned long long big;
    const int t = threadIdx.x;
    if (t == 0) { sum = 0; least = 99; most = -99; count = 0; big = 1ull << 40; }
    __syncthreads();
    atomicAdd(&sum, (double)x[t]);
    atomicMin(&least, t - 5);
    atomicMax(&most, t + 5);
    atomicSub(&count, 1);
    for (unsigned long long old = atomicAdd(&big, 0), seen; ; old = seen) {
        seen = atomicCAS(&big, old, old + 2);
        if (seen == old) break;
    }
    __syncthreads();
    if (t < 5) {
        const double all[] = {sum, 1.0 * least, 1.0 * most, 1.0 * count,
                              (double)(big - (1ull << 40))};
        y[t] = (float)all[t];
    }
""",
        lambda x: np.append(np.float32([2016, -5, 68, -64, 128]), 0 * x[5:]),
    ),
    "helpers with shared memory of their own, from one template": Right(
        """
    const int t = threadIdx.x;
    y[t] = (float)turned(x[t]) + (float)turned((double)x[t]) + turned<int>(t);
""",
        lambda x: 3 * (63 - x),
        before="""
template <typename T> __device__ __noinline__ T turned(T v)
{
    __shared__ T s[64];
    __syncthreads();
    s[threadIdx.x] = v;
    __syncthreads();
    return s[63 - threadIdx.x];
}""",
    ),
    "shared arrays in one line, aligned, of a struct, of two axes": Right(
        """
    struct Pair { float a, b; };
    __shared__ float first[64], second[2] [32], /* a comment; with commas, */ third;
    __shared__ __align__(16) Pair pairs[64];
    const int t = threadIdx.x;
    first[t] = x[t];
    second[t / 32][t % 32] = 2 * x[t];
    pairs[t] = {x[t], 1};
    if (t == 0) third = 5;
    __syncthreads();
    const int o = 63 - t;
    y[t] = first[o] + second[o / 32][o % 32] + pairs[o].a + pairs[o].b + third;
""",
        lambda x: 4 * (63 - x) + 6,
    ),
    "dynamic shared memory, cut into arrays of two types": Right(
        """
    extern __shared__ __align__(16) unsigned char raw[];
    double* wide = (double*)raw;
    int* narrow = (int*)(wide + 64);
    const int t = threadIdx.x;
    wide[t] = x[t];
    narrow[t] = t;
    __syncthreads();
    y[t] = (float)wide[63 - t] + narrow[(t + 1) % 64];
""",
        lambda x: 63 - x + (x + 1) % 64,
        shared_bytes=64 * 12,
    ),
    "100 KiB of dynamic shared memory": Right(
        """
    extern __shared__ float wide[];
    const int t = threadIdx.x;
    for (int i = t; i < 25600; i += 64) wide[i] = i;
    __syncthreads();
    y[t] = wide[25599 - t];
""",
        lambda x: 25599 - x,
        shared_bytes=102400,
    ),
    "reads and writes of four floats at once": Right(
        """
    const int t = threadIdx.x;
    if (t < 16) {
        float4 v = __ldg((const float4*)x + t);
        v = make_float4(v.w, v.z, v.y, v.x);
        ((float4*)y)[t] = v;
    }
""",
        blocks_of(4, lambda part: part[::-1]),
    ),
    "votes of a warp and of a block": Right(
        """
    const int t = threadIdx.x;
    const unsigned odd = __ballot_sync(0xffffffffu, t & 1);
    const bool any = __any_sync(0xffffffffu, t == 40);
    const bool all = __all_sync(0xffffffffu, t < 32);
    const int small = __syncthreads_count(t < 10);
    const bool both = __syncthreads_and(t >= 0), one = __syncthreads_or(t == 63);
    const bool none = __syncthreads_or(t == 64), some = __syncthreads_and(t > 0);
    y[t] = (odd == 0xaaaaaaaau) + 2 * any + 4 * all + 8 * (small == 10) + 16 * both +
           32 * one + 64 * none + 128 * some;
""",
        lambda x: 1 + 8 + 16 + 32 + np.where(x < 32, 4, 2),
    ),
    "shuffles of eight bytes": Right(
        """
    const int t = threadIdx.x;
    const double wide = __shfl_sync(0xffffffffu, x[t] + 0x1p-40, 5) - t / 32 * 32 - 5;
    const long long big = __shfl_down_sync(0xffffffffu, (1ll << 40) + t, 1);
    const unsigned u = __shfl_sync(0xffffffffu, 3000000000u, 40);
    y[t] = (float)(wide * 0x1p40) + (big - (1ll << 40)) + (u == 3000000000u);
""",
        lambda x: 2 + np.where(x % 32 < 31, x + 1, x),
    ),
    "the functions that C++ does not have": Right(
        """
    const int t = threadIdx.x;
    float s, c;
    sincospif(2.0f * t, &s, &c);
    int right = s == 0 && c == 1 && cospif(1) == -1;
    right += sinpi(3.0) == 0 && cospi(0.5) == 0;
    right += rsqrtf(4) == 0.5f && __fdividef(1, 4) == 0.25f && __expf(0) == 1;
    right += __popc(7u) == 3 && __clz(1) == 31 && __ffs(8) == 4 && __brev(8) == 1 << 28;
    right += min(3, 5u) == 3 && max(2.0f, 3.0) == 3 && __mulhi(1 << 30, 8) == 2;
    right += __int_as_float(__float_as_int(1.5f)) == 1.5f && fmaf(2, 3, 4) == 10;
    right += __saturatef(3) == 1 && max(1.0f, nanf("")) == 1 && isnan(nan(""));
    right += abs(-3) == 3 && abs(-1.5f) == 1.5f && isinf(1 / 0.0f) && floorf(1.5f) == 1;
    right += make_double2(1, 2).y == 2 && dim3(4).y == 1 && warpSize == 32;
    y[t] = right;
""",
        lambda x: np.full_like(x, 9),
    ),
}

KERNELS = {name: f"right_{i}" for i, name in enumerate(RIGHT)}
SOURCE = "\n".join(right.text(KERNELS[name]) for name, right in RIGHT.items())
