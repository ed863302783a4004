// Y[p, q, f] = sum_s A[p, s, f] B[q, s, f], or with conj(B[q, s, f]): eqs. (3.5) and
// (3.16), frequency by frequency. What a convolution needs between its transforms:
//   y       p batch,  q output, s input:  A = X,       B = K
//   grad x  p batch,  q input,  s output: A = grad Y,  B = K, conjugated
//   grad k  p output, q input,  s batch:  A = grad Y,  B = X, conjugated
// Launch   naive: 1-D, one thread an output. Fast: blocks of (32, 8) threads, along x
//          ceil(F / 32) ceil(P / 16) ceil(Q / 16) of them; those of one group of
//          frequencies are neighbours, so that the second-level cache holds what they
//          share
// Memory   frequencies are contiguous, as rfft leaves them: a warp reads 32 neighbours.
//          Nothing is transposed, and no (P, Q, S, F) product exists. A thread keeps
//          4 x 8 sums in registers, a block 16 x 16 at 32 frequencies; its warps meet
//          the same rows of A and B in the first-level cache
// Cost     8 P Q S F flops; (P S + Q S + P Q) F complex numbers once through memory if
//          the caches serve what is read again, A ceil(Q / 16), B ceil(P / 16) times.
//          Reads of a thread for 8 flops: 2 (naive), 12 / 32 (fast). At (P, Q, S, F) =
//          (32, 30, 30, 16001) in float 3.7 Gflop and 0.36 GB: at least 55 and 75 us on
//          an H200 (67 Tflop/s, 4.8 TB/s); counted, not measured
// Index    p, q, s as above, f frequency; int on an axis, long long across. Strides in
//          complex numbers say where p, q and s lie in A and B; Y is contiguous
// Checked by the caller: dtypes, one device, the same S and F, no axis empty, unit
//          stride along f, at most 2^31 - 1 blocks
#ifndef REAL
#define REAL float
#define COMPLEX float2
#endif
#define LANES 32           // frequencies of a block, one a lane
#define ROWS 4             // outputs of a thread along p, and along q: 64 of about 110
#define COLUMNS 8          // registers (float) hold their sums
#define WARPS_P 4          // warps of a block along p, and along q
#define WARPS_Q 2
#define TILE_P (ROWS * WARPS_P)
#define TILE_Q (COLUMNS * WARPS_Q)

// sum + x k, two multiply-adds for each part
__device__ __forceinline__ COMPLEX multiply_add(COMPLEX x, COMPLEX k, COMPLEX sum)
{
    sum.x += x.x * k.x;
    sum.x -= x.y * k.y;
    sum.y += x.x * k.y;
    sum.y += x.y * k.x;
    return sum;
}

extern "C" __global__ void spectral_product_naive(
    const COMPLEX* __restrict__ A, const COMPLEX* __restrict__ B,
    COMPLEX* __restrict__ Y, int P, int Q, int S, int F, long long a_p, long long a_s,
    long long b_q, long long b_s, int conjugate)
{
    const long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= (long long)P * Q * F) return;
    const int f = i % F, q = i / F % Q, p = i / F / Q;
    COMPLEX sum = {0, 0};
    for (int s = 0; s < S; ++s) {
        COMPLEX b = B[q * b_q + s * b_s + f];
        if (conjugate) b.y = -b.y;
        sum = multiply_add(A[p * a_p + s * a_s + f], b, sum);
    }
    Y[i] = sum;
}

extern "C" __global__ void spectral_product(
    const COMPLEX* __restrict__ A, const COMPLEX* __restrict__ B,
    COMPLEX* __restrict__ Y, int P, int Q, int S, int F, long long a_p, long long a_s,
    long long b_q, long long b_s, int conjugate)
{
    const int tiles_p = (P + TILE_P - 1) / TILE_P, tiles_q = (Q + TILE_Q - 1) / TILE_Q;
    const int tile = blockIdx.x % (tiles_p * tiles_q);
    const int f = blockIdx.x / (tiles_p * tiles_q) * LANES + threadIdx.x;
    const int p0 = tile / tiles_q * TILE_P + threadIdx.y / WARPS_Q * ROWS;
    const int q0 = tile % tiles_q * TILE_Q + threadIdx.y % WARPS_Q * COLUMNS;
    if (f >= F || p0 >= P || q0 >= Q) return;
    const REAL sign = conjugate ? -1 : 1;
    COMPLEX sum[ROWS][COLUMNS] = {};
    for (int s = 0; s < S; ++s) {
        COMPLEX a[ROWS];
        for (int i = 0; i < ROWS; ++i)      // beyond the edge the last row, not stored
            a[i] = A[min(p0 + i, P - 1) * a_p + s * a_s + f];
        for (int j = 0; j < COLUMNS; ++j) {
            COMPLEX b = B[min(q0 + j, Q - 1) * b_q + s * b_s + f];
            b.y *= sign;
            for (int i = 0; i < ROWS; ++i) sum[i][j] = multiply_add(a[i], b, sum[i][j]);
        }
    }
    for (int i = 0; i < ROWS && p0 + i < P; ++i)
        for (int j = 0; j < COLUMNS && q0 + j < Q; ++j)
            Y[((long long)(p0 + i) * Q + q0 + j) * F + f] = sum[i][j];
}

// Y[b, o, f] = sum_c X[b, c, f] K[o, c, f] with K[o, c, f] = sum_u mix[o, c, u] H[u, f]
// (eq. 3.22), or with conj(K): the product of a CKConv layer, whose (O, C, F) spectra
// of kernels are never in memory. The gradient in X is the same with mix[c, o, u],
// conj(K), and Y's gradient for X.
// Launch   naive: 1-D, one thread an output. Fast: blocks of (32, 8) threads, along x
//          ceil(F / 32) ceil(B / 32) ceil(O / 8) of them, ordered as above
// Memory   first each warp mixes, in registers, the kernels of one output and 4 inputs;
//          all 8 warps leave theirs in shared memory; then each warp multiplies 4
//          signals with all of them. Shared: 14 kB (float)
// Cost     8 B O C F flops to multiply and 4 U O C F ceil(B / 32) to mix; (B C + B O +
//          U) F complex numbers once through memory if the caches serve what is read
//          again, X ceil(O / 8) times. Naive: 8 + 4 U flops and U + 1 complex reads for
//          each of B O C F terms. At (B, O, C, U, F) = (32, 30, 30, 33, 16001) in float
//          5.6 Gflop and 0.25 GB: at least 84 and 52 us on an H200, not measured
// Index    b signal, o output, c input, u hidden unit, f frequency; int on an axis
// Checked by the caller: dtypes, one device, shapes, X, H and Y contiguous, unit stride
//          of mix along u, no axis empty, at most 2^31 - 1 blocks
#define OUTPUTS 8          // of a block; as many as it has warps
#define SIGNALS 4          // of a thread
#define CHANNELS 4         // inputs whose kernels are in shared memory at a time
#define UNITS 40           // hidden units whose mixture is there at a time
#define PITCH (OUTPUTS * CHANNELS + 4)  // 4 more, so that writes spread over the banks
                                        // and 4 channels are still one aligned read

extern "C" __global__ void factorised_spectral_product_naive(
    const COMPLEX* __restrict__ X, const COMPLEX* __restrict__ H,
    const REAL* __restrict__ mix, COMPLEX* __restrict__ Y, int B, int O, int C, int U,
    int F, long long m_o, long long m_c, int conjugate)
{
    const long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= (long long)B * O * F) return;
    const int f = i % F, o = i / F % O, b = i / F / O;
    COMPLEX sum = {0, 0};
    for (int c = 0; c < C; ++c) {
        COMPLEX k = {0, 0};
        for (int u = 0; u < U; ++u) {
            const REAL weight = mix[o * m_o + c * m_c + u];
            const COMPLEX h = H[(long long)u * F + f];
            k.x += weight * h.x;
            k.y += weight * h.y;
        }
        if (conjugate) k.y = -k.y;
        sum = multiply_add(X[((long long)b * C + c) * F + f], k, sum);
    }
    Y[i] = sum;
}

// mixture[u][o, c] = mix[o0 + o, c0 + c, u0 + u], zeros beyond the edges
__device__ __forceinline__ void stage(
    const REAL* __restrict__ mix, REAL mixture[UNITS][PITCH], int o0, int c0, int u0,
    int O, int C, int U, long long m_o, long long m_c)
{
    const int thread = threadIdx.y * LANES + threadIdx.x;
    for (int i = thread; i < UNITS * OUTPUTS * CHANNELS; i += LANES * OUTPUTS) {
        const int u = i % UNITS, pair = i / UNITS;   // units are contiguous in mix
        const int o = o0 + pair / CHANNELS, c = c0 + pair % CHANNELS;
        const bool inside = o < O && c < C && u0 + u < U;
        mixture[u][pair] = inside ? mix[o * m_o + c * m_c + u0 + u] : 0;
    }
}

// k[c] += sum over the staged units u of mixture[u][output, c] H[u0 + u, f]
__device__ __forceinline__ void mix_kernels(
    const COMPLEX* __restrict__ H, const REAL mixture[UNITS][PITCH],
    COMPLEX k[CHANNELS], int output, int units, long long F)
{
    for (int u = 0; u < units; ++u, H += F)
        for (int c = 0; c < CHANNELS; ++c) {
            k[c].x += mixture[u][output * CHANNELS + c] * H->x;
            k[c].y += mixture[u][output * CHANNELS + c] * H->y;
        }
}

extern "C" __global__ void factorised_spectral_product(
    const COMPLEX* __restrict__ X, const COMPLEX* __restrict__ H,
    const REAL* __restrict__ mix, COMPLEX* __restrict__ Y, int B, int O, int C, int U,
    int F, long long m_o, long long m_c, int conjugate)
{
    __shared__ __align__(16) REAL mixture[UNITS][PITCH];
    __shared__ COMPLEX kernel[CHANNELS][OUTPUTS][LANES];
    const int tiles_b = (B + SIGNALS * OUTPUTS - 1) / (SIGNALS * OUTPUTS);
    const int tiles_o = (O + OUTPUTS - 1) / OUTPUTS, lane = threadIdx.x;
    const int warp = threadIdx.y, tile = blockIdx.x % (tiles_b * tiles_o);
    const int f = blockIdx.x / (tiles_b * tiles_o) * LANES + lane, at = min(f, F - 1);
    const int o0 = tile % tiles_o * OUTPUTS;
    const int b0 = (tile / tiles_o * OUTPUTS + warp) * SIGNALS;
    COMPLEX sum[SIGNALS][OUTPUTS] = {};
    for (int c0 = 0; c0 < C; c0 += CHANNELS) {
        COMPLEX k[CHANNELS] = {};
        for (int u0 = 0; u0 < U; u0 += UNITS) {
            __syncthreads();           // every warp is done with mixture and kernel
            stage(mix, mixture, o0, c0, u0, O, C, U, m_o, m_c);
            __syncthreads();           // the mixture is complete
            const int units = min(UNITS, U - u0);
            mix_kernels(H + (long long)u0 * F + at, mixture, k, warp, units, F);
        }
        for (int c = 0; c < CHANNELS; ++c)
            kernel[c][warp][lane] = {k[c].x, conjugate ? -k[c].y : k[c].y};
        __syncthreads();               // the kernels of all 8 outputs are there
        for (int c = 0; c < CHANNELS && c0 + c < C && b0 < B; ++c) {
            COMPLEX x[SIGNALS];
            for (int i = 0; i < SIGNALS; ++i)   // beyond the edge the last, not stored
                x[i] = X[((long long)min(b0 + i, B - 1) * C + c0 + c) * F + at];
            for (int o = 0; o < OUTPUTS; ++o)
                for (int i = 0; i < SIGNALS; ++i)
                    sum[i][o] = multiply_add(x[i], kernel[c][o][lane], sum[i][o]);
        }
    }
    for (int i = 0; i < SIGNALS && b0 + i < B && f < F; ++i)
        for (int o = 0; o < OUTPUTS && o0 + o < O; ++o)
            Y[((long long)(b0 + i) * O + o0 + o) * F + f] = sum[i][o];
}
