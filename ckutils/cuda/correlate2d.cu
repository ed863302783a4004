// y[i, j] = sum_{a, b} w[a, b] x[i + a - top, j + b - left],  x = 0 outside  (eq. 1.4)
//
// x (H, W), w (KH, KW), y (OH, OW), all row after row. top = left = 0 is "valid", and
// top = KH - 1, left = KW - 1 is "full". One equation, three kernels:
//   correlate2d_naive  one thread an output, letter by letter
//   correlate2d        many outputs of few taps: a tile of the image in shared memory,
//                      ROWS x 4 outputs a thread in registers
//   correlate2d_split  few outputs of many taps, as the gradient in w has: the taps are
//                      split over the blocks, their sums are added by the caller
//
// Constants of correlate2d, chosen by the caller (ckutils/cuda/plan.py):
//   REAL    float, or double
//   KH, KW  the size of w
//   PH, PW  how much of w a tile serves; what is larger goes piece by piece
//   CHUNK   rows of taps that are unrolled together: CHUNK PW fills up to 64 registers
//   ROWS, WARPS  rows of outputs a thread, and warps a block
// Checked by the caller: dtype, contiguity, sizes >= 1, the shared memory below 48 KiB.
#ifndef KH
#define KH 1
#define KW 1
#define PH 1
#define PW 1
#define CHUNK 1
#endif
#ifndef ROWS
#define ROWS 8
#define WARPS 4
#endif
#define ACROSS 128           // outputs that the 32 lanes of a warp hold across: 4 each
#define TALL (ROWS * WARPS)  // rows of outputs a block
#define QUADS ((PW + 6) / 4)  // quads of an image row that 4 outputs and PW taps touch
#define PITCH (31 + QUADS)    // quads of a row of the tile

struct alignas(16) Quad { REAL v[4]; };  // read at once in float, in two in double

// x[i, j], or 0 outside the image
__device__ __forceinline__ REAL pixel(const REAL* x, int i, int j, int H, int W)
{
    const bool inside = (unsigned)i < (unsigned)H & (unsigned)j < (unsigned)W;
    return inside ? x[(long long)i * W + j] : (REAL)0;   // & does not branch
}

// Launch   ceil(OH OW / B) blocks of B threads, each one output
// Memory   neighbours read neighbours; each pixel is read KH KW times, from the caches
// Cost     2 KH KW flops an output, and KH KW reads: the caches are the limit
// Index    n output; long long across the image
extern "C" __global__ void correlate2d_naive(
    const REAL* __restrict__ x, const REAL* __restrict__ w, REAL* __restrict__ y,
    int H, int W, int kh, int kw, int OH, int OW, int top, int left)
{
    const long long n = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (n >= (long long)OH * OW) return;
    const int i = n / OW, j = n % OW;
    REAL sum = 0;
    for (int a = 0; a < kh; ++a)
        for (int b = 0; b < kw; ++b)
            sum += w[(long long)a * kw + b] * pixel(x, i + a - top, j + b - left, H, W);
    y[n] = sum;
}

// `rows` x `columns` taps on ROWS x 4 outputs. Image row r serves output row r - a by
// tap row a, so it is loaded once; a tap row stays in registers for ROWS image rows.
template <int rows, int columns>
__device__ __forceinline__ void chunk(
    REAL (&sum)[ROWS][4], const Quad* tile, const REAL* taps)
{
#pragma unroll
    for (int r = 0; r < ROWS + rows - 1; ++r) {
        Quad x[QUADS];
#pragma unroll
        for (int q = 0; q < QUADS; ++q) x[q] = tile[r * PITCH + q];
#pragma unroll
        for (int a = 0; a < rows; ++a) {
            if (r - a < 0 || r - a >= ROWS) continue;   // known when compiled
#pragma unroll
            for (int b = 0; b < columns; ++b)
#pragma unroll
                for (int c = 0; c < 4; ++c)
                    sum[r - a][c] += taps[a * PW + b] * x[(b + c) / 4].v[(b + c) % 4];
        }
    }
}

// The taps of a piece, CHUNK rows at a time: the loop is not unrolled, so that its body
// stays in the instruction cache.
template <int rows, int columns>
__device__ __forceinline__ void piece(
    REAL (&sum)[ROWS][4], const Quad* tile, const REAL* taps)
{
#pragma unroll 1
    for (int a = 0; a + CHUNK <= rows; a += CHUNK)
        chunk<CHUNK, columns>(sum, tile + a * PITCH, taps + a * PW);
    const int a = rows - rows % CHUNK;
    chunk<rows % CHUNK, columns>(sum, tile + a * PITCH, taps + a * PW);
}

// One row of the tile, by one warp: neighbours read neighbours, four to six times.
__device__ __forceinline__ void fill(
    Quad* to, const REAL* x, int lane, int i, int j, int H, int W)
{
    REAL* row = to->v;
    REAL got[(4 * PITCH + 31) / 32];       // all on their way before one is put down
#pragma unroll
    for (int n = 0; n < 4 * PITCH; n += 32)
        got[n / 32] = pixel(x, i, j + n + lane, H, W);
#pragma unroll
    for (int n = 0; n < 4 * PITCH; n += 32)
        if (n + lane < 4 * PITCH) row[n + lane] = got[n / 32];
}

// A warp's outputs by way of its own rows of the tile, so that neighbours, which hold
// four outputs each, write neighbours.
__device__ __forceinline__ void store(
    const REAL (&sum)[ROWS][4], Quad* mine, REAL* y,
    int lane, int i, int j, int OH, int OW)
{
#pragma unroll
    for (int r = 0; r < ROWS; ++r)
#pragma unroll
        for (int c = 0; c < 4; ++c) mine[r * PITCH + lane].v[c] = sum[r][c];
    __syncwarp();                          // all lanes have put theirs down
#pragma unroll
    for (int r = 0; r < ROWS; ++r) {
        const REAL* from = mine[r * PITCH].v + lane;
        REAL* to = y + (long long)(i + r) * OW + j + lane;
#pragma unroll
        for (int n = 0; n < ACROSS; n += 32)
            if ((i + r < OH) & (j + n + lane < OW)) to[n] = from[n];
    }
}

// Launch   ceil(OH / TALL) ceil(OW / ACROSS) blocks of (32, WARPS) threads, each with
//          ROWS x 4 outputs
// Memory   a tile of TALL + PH - 1 rows of ACROSS + PW - 1 pixels, and PH PW taps; each
//          image row of a thread is read from it as whole quads, neighbour beside
//          neighbour, and the taps by all lanes at once: no bank conflict
// Cost     2 KH KW flops and 8 bytes an output in float: memory-bound up to KH KW = 56
//          at 14 flops a byte
// Index    (i0, j0) first output of the block; int in the image, long long across
extern "C" __global__ void __launch_bounds__(32 * WARPS) correlate2d(
    const REAL* __restrict__ x, const REAL* __restrict__ w, REAL* __restrict__ y,
    int H, int W, int OH, int OW, int top, int left)
{
    __shared__ Quad tile[(TALL + PH - 1) * PITCH];
    __shared__ REAL taps[PH * PW];
    const int lane = threadIdx.x, warp = threadIdx.y, across = (OW - 1) / ACROSS + 1;
    const int i0 = blockIdx.x / across * TALL, j0 = blockIdx.x % across * ACROSS;
    REAL sum[ROWS][4] = {};
    for (int a = 0; a < KH; a += PH)
        for (int b = 0; b < KW; b += PW) {
            const bool tall = a + PH <= KH, wide = b + PW <= KW;   // a whole piece
            for (int n = 32 * warp + lane; n < PH * PW; n += 32 * WARPS)
                if (a + n / PW < KH && b + n % PW < KW)
                    taps[n] = w[(long long)(a + n / PW) * KW + b + n % PW];
#pragma unroll 2
            for (int r = warp; r < TALL + PH - 1; r += WARPS)   // 2 rows on their way
                fill(tile + r * PITCH, x, lane, i0 + a - top + r, j0 + b - left, H, W);
            __syncthreads();               // the tile and its taps are complete
            const Quad* mine = tile + warp * ROWS * PITCH + lane;
            if (tall && wide) piece<PH, PW>(sum, mine, taps);
            else if (tall) piece<PH, KW % PW>(sum, mine, taps);
            else if (wide) piece<KH % PH, PW>(sum, mine, taps);
            else piece<KH % PH, KW % PW>(sum, mine, taps);
            __syncthreads();               // everyone has read them
        }
    store(sum, tile + warp * ROWS * PITCH, y, lane, i0 + warp * ROWS, j0, OH, OW);
}

// Launch   (OH ceil(OW / 8), parts) blocks of 256 threads
// Memory   neighbours take neighbouring taps; 8 outputs beside one another share a tap
// Cost     2 KH KW flops an output and 9/8 reads a product, from the caches
// Index    p part, of `step` rows of taps; (i, j0) the block's first output; (a, b) tap
extern "C" __global__ void __launch_bounds__(256) correlate2d_split(
    const REAL* __restrict__ x, const REAL* __restrict__ w, REAL* __restrict__ sums,
    int H, int W, int kh, int kw, int OH, int OW, int top, int left, int step)
{
    __shared__ REAL of_warp[8][8];
    const int across = (OW - 1) / 8 + 1, p = blockIdx.y;
    const int i = blockIdx.x / across, j0 = blockIdx.x % across * 8;
    const int end = min(kh, (p + 1) * step), lane = threadIdx.x % 32;
    REAL sum[8] = {};
    int a = p * step + threadIdx.x / kw, b = threadIdx.x % kw;
    while (a < end) {
        const REAL tap = w[(long long)a * kw + b];
        for (int c = 0; c < 8; ++c)
            sum[c] += tap * pixel(x, i + a - top, j0 + c + b - left, H, W);
        a += 256 / kw, b += 256 % kw;      // 256 taps further, without a division
        if (b >= kw) b -= kw, ++a;
    }
    for (int c = 0; c < 8; ++c)
        for (int d = 16; d > 0; d /= 2) sum[c] += __shfl_down_sync(~0u, sum[c], d);
    if (lane == 0)
        for (int c = 0; c < 8; ++c) of_warp[threadIdx.x / 32][c] = sum[c];
    __syncthreads();                       // the sums of all warps are there
    if (threadIdx.x >= 8 || j0 + threadIdx.x >= OW) return;
    REAL total = 0;
    for (int k = 0; k < 8; ++k) total += of_warp[k][threadIdx.x];
    sums[((long long)p * OH + i) * OW + j0 + threadIdx.x] = total;
}
