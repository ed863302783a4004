// CUDA C as g++ reads it: enough of the language to run a kernel on a CPU, where each
// CUDA thread is a fibre. Types and functions that CUDA does not have stay undeclared,
// so that what compiles here has a good chance to compile there.
#pragma once
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <math.h>  // the C++ one: declares abs, isnan and so on for all types
#include "ck_vectors.h"

#define CK_EMULATOR 1
#define __global__
#define __device__
#define __host__
#define __constant__
#define __forceinline__ inline __attribute__((always_inline))
#define __noinline__ __attribute__((noinline))
#define __launch_bounds__(...)
#define __align__(n) alignas(n)

// What the runtime offers ---------------------------------------------------------

struct CkThread { uint3 thread, block; dim3 block_size, grid_size; };
struct CkSlot { void* memory; unsigned long block; };  // one a __shared__ declaration

extern "C" {
extern CkThread* ck_thread;  // the CUDA thread that runs now
int ck_barrier(int vote, int line);  // the number of threads whose vote is not 0
void ck_warp_sync(unsigned mask, int line);
uint64_t ck_shuffle(unsigned mask, uint64_t value, int lane, int width, int line);
unsigned ck_ballot(unsigned mask, int vote, int line);
void* ck_static_shared(CkSlot* slot, size_t bytes, int line);
void* ck_dynamic_shared(int line);
void ck_pause(int line);
void ck_fence(int line);
void ck_order_atomic(void* address);
[[noreturn]] void ck_stop(const char* what, int line);
}

#define threadIdx (ck_thread->thread)
#define blockIdx (ck_thread->block)
#define blockDim (ck_thread->block_size)
#define gridDim (ck_thread->grid_size)
#define warpSize 32

// Barriers and warps --------------------------------------------------------------

#define __syncthreads() ((void)ck_barrier(0, __LINE__))
#define __syncthreads_count(vote) ck_barrier((vote) != 0, __LINE__)
#define __syncthreads_or(vote) (ck_barrier((vote) != 0, __LINE__) > 0)
#define __syncthreads_and(vote) (ck_barrier((vote) == 0, __LINE__) == 0)
#define __syncwarp(...) ck_warp_sync(ck_mask(__VA_ARGS__), __LINE__)
#define __ballot_sync(mask, vote) ck_ballot(mask, (vote) != 0, __LINE__)
#define __any_sync(mask, vote) (ck_ballot(mask, (vote) != 0, __LINE__) != 0)
#define __all_sync(mask, vote) (ck_ballot(mask, (vote) == 0, __LINE__) == 0)
#define __shfl_sync(mask, ...) ck_shfl(__LINE__, CK_TO, mask, __VA_ARGS__)
#define __shfl_up_sync(mask, ...) ck_shfl(__LINE__, CK_UP, mask, __VA_ARGS__)
#define __shfl_down_sync(mask, ...) ck_shfl(__LINE__, CK_DOWN, mask, __VA_ARGS__)
#define __shfl_xor_sync(mask, ...) ck_shfl(__LINE__, CK_XOR, mask, __VA_ARGS__)
// Memory is in order on one processor; a pause lets other threads show what they do.
#define __threadfence() ck_fence(__LINE__)
#define __threadfence_block() ck_fence(__LINE__)
#define __nanosleep(ns) ck_pause(__LINE__)

static inline unsigned ck_mask(unsigned mask = 0xffffffffu) { return mask; }

static inline int ck_lane()
{
    const uint3 t = threadIdx;
    return (t.x + blockDim.x * (t.y + blockDim.y * t.z)) % warpSize;
}

enum CkShuffle { CK_TO, CK_UP, CK_DOWN, CK_XOR };

// The lane that is read; a lane whose partner lies outside its segment of `width` lanes
// reads itself, and __shfl_sync wraps around.
static inline int ck_partner(CkShuffle kind, int by, int width)
{
    const int lane = ck_lane(), first = lane & ~(width - 1), last = first + width - 1;
    if (kind == CK_TO) return first + (by & (width - 1));
    if (kind == CK_UP) return lane - by < first ? lane : lane - by;
    if (kind == CK_DOWN) return lane + by > last ? lane : lane + by;
    return (lane ^ by) > last ? lane : lane ^ by;
}

template <class T>
static inline T ck_shfl(int line, CkShuffle kind, unsigned mask, T value, int by,
                        int width = warpSize)
{
    static_assert(std::is_arithmetic<T>::value && (sizeof(T) == 4 || sizeof(T) == 8),
                  "a shuffle moves a number of 4 or 8 bytes: move .x and .y in turn");
    uint64_t bits = 0;
    std::memcpy(&bits, &value, sizeof value);
    bits = ck_shuffle(mask, bits, ck_partner(kind, by, width), width, line);
    std::memcpy(&value, &bits, sizeof value);
    return value;
}

#include "ck_atomics.h"
#include "ck_math.h"

#undef assert
#define assert(truth) ((truth) ? (void)0 : ck_stop("assert(" #truth ") failed", __LINE__))
