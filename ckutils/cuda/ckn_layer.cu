// Y[b, p, t] = n kappa(V[b, p, t] / n),  n[b, t]^2 = sum of maps^2 over the patch at t:
// eq. (5.14) behind its matrix product V = conv2d(maps, Z), the patches' inner products
// with unit anchors. Where n = 0, Y = 0 and every gradient is 0, as in ckutils/ckn.py.
// Launch   naive: 1-D, one thread an output. Fast: grid (B, ceil(H_out / 8),
//          ceil(W_out / 32)), blocks of (32, 8) threads, one a pixel of one image;
//          (8 + h - 1) (32 + w - 1) REALs of shared memory
// Memory   pixels are contiguous: a warp reads 32 of a row. A block sums the squares
//          over channels once for its pixels and their rim, in shared memory; a thread
//          then keeps its norm in a register for all P anchors
// Cost     fast: V read and Y written once, 2 P words a pixel, and the maps, C (8 + h -
//          1) (32 + w - 1) / 256 words a pixel; about 30 flops an output: memory-bound.
//          Naive: C h w more reads an output. At 128 images of 32 x 32, P = 128, float:
//          134 MB and the maps, at least 28 us on an H200 (4.8 TB/s). The sequence of
//          torch calls moves ten words an output where this moves two: counted, not
//          measured
// Index    b image, p anchor, t = (i, j) pixel of H_out x W_out; c channel, a patch of
//          h x w, padding (h_pad, w_pad); int on an axis, long long across
// Checked by the caller: dtypes, one device, contiguity, H_out = H + 2 h_pad - h + 1,
//          the same for W_out, H_out and W_out at most 2^16 times a tile's
#ifndef REAL
#define REAL float
#endif
#ifndef KAPPA
#define KAPPA 0            // a row of the table below
#endif
#define TILE_W 32
#define TILE_H 8
#define PI 3.14159265358979323846

// The table of kernels: kappa(u), kappa'(u), and the derivative in the parameter beta
#if KAPPA == 0             // exponential, eq. (5.8): exp(beta (u - 1))
__device__ REAL kappa(REAL u, REAL beta) { return exp(beta * (u - 1)); }
__device__ REAL slope(REAL u, REAL beta) { return beta * exp(beta * (u - 1)); }
__device__ REAL by_beta(REAL u, REAL beta) { return (u - 1) * exp(beta * (u - 1)); }
#elif KAPPA == 1           // arc-cosine of degree 1, eq. (5.10); no parameter
__device__ REAL clamp(REAL u) { return min(max(u, (REAL)-1), (REAL)1); }  // rounding
__device__ REAL slope(REAL u, REAL beta) { return 1 - acos(clamp(u)) / (REAL)PI; }
__device__ REAL kappa(REAL u, REAL beta)
{
    const REAL c = clamp(u);
    return sqrt(1 - c * c) / (REAL)PI + c * slope(c, beta);
}
__device__ REAL by_beta(REAL u, REAL beta) { return 0; }
#else                      // polynomial, eq. (5.9): ((u + 1) / 2)^2; no parameter
__device__ REAL kappa(REAL u, REAL beta) { return (u + 1) * (u + 1) / 4; }
__device__ REAL slope(REAL u, REAL beta) { return (u + 1) / 2; }
__device__ REAL by_beta(REAL u, REAL beta) { return 0; }
#endif

// squares[r, s] = sum over channels of maps[c, i0 + r, j0 + s]^2, 0 outside the image
__device__ void sum_squares(
    const REAL* __restrict__ maps, REAL* squares, int C, int H, int W, int i0, int j0,
    int rows, int columns)
{
    const int thread = threadIdx.y * TILE_W + threadIdx.x;
    for (int k = thread; k < rows * columns; k += TILE_H * TILE_W) {
        const int i = i0 + k / columns, j = j0 + k % columns;
        REAL sum = 0;
        if (0 <= i && i < H && 0 <= j && j < W)
            for (int c = 0; c < C; ++c) {
                const REAL value = maps[((long long)c * H + i) * W + j];
                sum += value * value;
            }
        squares[k] = sum;
    }
}

// The sum of h rows and w columns of a plane of this pitch
__device__ REAL box_sum(const REAL* plane, int pitch, int h, int w)
{
    REAL sum = 0;
    for (int u = 0; u < h; ++u)
        for (int v = 0; v < w; ++v) sum += plane[u * pitch + v];
    return sum;
}

extern "C" __global__ void ckn_layer_naive(
    const REAL* __restrict__ V, const REAL* __restrict__ maps,
    const REAL* __restrict__ beta, REAL* __restrict__ Y, REAL* __restrict__ norms,
    int B, int C, int H, int W, int P, int H_out, int W_out, int h, int w, int h_pad,
    int w_pad, REAL tiny)
{
    const long long size = (long long)H_out * W_out;
    const long long k = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (k >= B * P * size) return;
    const int j = k % W_out, i = k / W_out % H_out, p = k / size % P, b = k / size / P;
    REAL sum = 0;
    for (int c = 0; c < C; ++c)
        for (int r = i - h_pad; r < i - h_pad + h; ++r)
            for (int s = j - w_pad; s < j - w_pad + w; ++s) {
                if (r < 0 || r >= H || s < 0 || s >= W) continue;
                const REAL value = maps[(((long long)b * C + c) * H + r) * W + s];
                sum += value * value;
            }
    const REAL n = sum > tiny ? sqrt(sum) : 0;
    Y[k] = n * kappa(V[k] / (n > 0 ? n : 1), *beta);
    if (p == 0) norms[b * size + k % size] = n;
}

extern "C" __global__ void ckn_layer(
    const REAL* __restrict__ V, const REAL* __restrict__ maps,
    const REAL* __restrict__ beta, REAL* __restrict__ Y, REAL* __restrict__ norms,
    int B, int C, int H, int W, int P, int H_out, int W_out, int h, int w, int h_pad,
    int w_pad, REAL tiny)
{
    extern __shared__ REAL squares[];   // of the block's pixels and their rim
    const int b = blockIdx.x, i0 = blockIdx.y * TILE_H, j0 = blockIdx.z * TILE_W;
    const int i = i0 + threadIdx.y, j = j0 + threadIdx.x, pitch = TILE_W + w - 1;
    sum_squares(maps + (long long)b * C * H * W, squares, C, H, W, i0 - h_pad,
                j0 - w_pad, TILE_H + h - 1, pitch);
    __syncthreads();                    // a patch needs what other threads have summed
    if (i >= H_out || j >= W_out) return;
    const REAL sum = box_sum(squares + threadIdx.y * pitch + threadIdx.x, pitch, h, w);
    const REAL n = sum > tiny ? sqrt(sum) : 0, inverse = n > 0 ? 1 / n : 1;
    const long long size = (long long)H_out * W_out, t = (long long)i * W_out + j;
    norms[b * size + t] = n;
    V += b * P * size + t;
    Y += b * P * size + t;
#pragma unroll 8            // 8 reads under way at a time
    for (int p = 0; p < P; ++p) Y[p * size] = n * kappa(V[p * size] * inverse, *beta);
}

// The gradients, with u = V / n and G the gradient in Y:
//   in V     G kappa'(u)
//   in n     sum over p of G (kappa(u) - u kappa'(u)); n_grad holds it over n
//   in beta  sum over p of G n dkappa/dbeta(u); beta_grad holds it for each pixel, and
//            the caller adds the pixels
//   in maps  maps[b, c, i, j] times the sum of n_grad over the patches with (i, j)
// Launch   ckn_layer_grad: 1-D, one thread a pixel. ckn_norm_grad_naive: 1-D, a thread
//          a number of the maps. ckn_norm_grad: as ckn_layer, H and W for H_out and
//          W_out; (8 + h - 1) (32 + w - 1) REALs of shared memory
// Memory   ckn_layer_grad: neighbours read neighbours and nothing is read twice, so no
//          faster one stands beside it. ckn_norm_grad: n_grad of a block's pixels and
//          their rim in shared memory, summed once for all channels
// Cost     ckn_layer_grad 3 P words a pixel; ckn_norm_grad 2 C words a pixel, naive h w
//          more reads for each of them. Both memory-bound
// Checked by the caller: as above; norms as ckn_layer has left them
extern "C" __global__ void ckn_layer_grad(
    const REAL* __restrict__ G, const REAL* __restrict__ V,
    const REAL* __restrict__ norms, const REAL* __restrict__ beta,
    REAL* __restrict__ V_grad, REAL* __restrict__ n_grad, REAL* __restrict__ beta_grad,
    int B, int P, int size)
{
    const long long k = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (k >= (long long)B * size) return;
    const REAL n = norms[k], inverse = n > 0 ? 1 / n : 0;   // 0: no gradient at all
    REAL n_sum = 0, beta_sum = 0;
#pragma unroll 4
    for (int p = 0; p < P; ++p) {
        const long long at = (k / size * P + p) * size + k % size;
        const REAL g = G[at], u = V[at] * inverse, kappa_slope = slope(u, *beta);
        V_grad[at] = n > 0 ? g * kappa_slope : 0;
        n_sum += g * (kappa(u, *beta) - u * kappa_slope);
        beta_sum += g * by_beta(u, *beta);
    }
    n_grad[k] = n_sum * inverse;
    beta_grad[k] = beta_sum * n;
}

extern "C" __global__ void ckn_norm_grad_naive(
    const REAL* __restrict__ maps, const REAL* __restrict__ n_grad,
    REAL* __restrict__ maps_grad, int B, int C, int H, int W, int H_out, int W_out,
    int h, int w, int h_pad, int w_pad)
{
    const long long k = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (k >= (long long)B * C * H * W) return;
    const int j = k % W, i = k / W % H, b = k / W / H / C;
    REAL sum = 0;
    for (int r = i + h_pad - h + 1; r <= i + h_pad; ++r)
        for (int s = j + w_pad - w + 1; s <= j + w_pad; ++s)
            if (0 <= r && r < H_out && 0 <= s && s < W_out)
                sum += n_grad[((long long)b * H_out + r) * W_out + s];
    maps_grad[k] = maps[k] * sum;
}

extern "C" __global__ void ckn_norm_grad(
    const REAL* __restrict__ maps, const REAL* __restrict__ n_grad,
    REAL* __restrict__ maps_grad, int B, int C, int H, int W, int H_out, int W_out,
    int h, int w, int h_pad, int w_pad)
{
    extern __shared__ REAL plane[];     // n_grad at the patches that meet the block
    const int b = blockIdx.x, thread = threadIdx.y * TILE_W + threadIdx.x;
    const int i0 = blockIdx.y * TILE_H, j0 = blockIdx.z * TILE_W;
    const int i = i0 + threadIdx.y, j = j0 + threadIdx.x, pitch = TILE_W + w - 1;
    for (int k = thread; k < (TILE_H + h - 1) * pitch; k += TILE_H * TILE_W) {
        const int r = i0 + h_pad - h + 1 + k / pitch;
        const int s = j0 + w_pad - w + 1 + k % pitch;
        const bool inside = 0 <= r && r < H_out && 0 <= s && s < W_out;
        plane[k] = inside ? n_grad[((long long)b * H_out + r) * W_out + s] : 0;
    }
    __syncthreads();                    // a pixel needs what other threads have read
    if (i >= H || j >= W) return;
    const REAL sum = box_sum(plane + threadIdx.y * pitch + threadIdx.x, pitch, h, w);
#pragma unroll 4
    for (int c = 0; c < C; ++c) {
        const long long k = (((long long)b * C + c) * H + i) * W + j;
        maps_grad[k] = maps[k] * sum;
    }
}
