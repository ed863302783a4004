// h_t = a_t h_{t-1} + b_t along the last axis, t = 0 ... T - 1                (eq. 4.5)
//
// b and h are (rows, T); a is (a_rows, T), or (a_rows, 1) for a coefficient that does
// not change, and row r of b takes row r % a_rows of a. `initial` (rows) is the state
// before the first step. With reverse = 1 time runs backward: h_t = a_t h_{t+1} + b_t.
//   linear_recurrence_naive     one thread a row, letter by letter
//   linear_recurrence           one block a row: a scan of steps in registers
//   linear_recurrence_backward  the gradients in a and b in one pass over a, h and g
//
// A step (a, b) turns a state h into a h + b; two steps one after the other are again a
// step. So threads fold the steps of their own stretch of time, fold those across the
// warp by shuffles and across warps by shared memory, and start from what came before.
// Accuracy: nothing is divided. A product of many |a| < 1 may become 0, as it should;
// one of many |a| > 1 may overflow although h does not, as 0 inf = NaN then shows.
//
// Constants: NUMBER is float, double, float2 or double2 (then COMPLEX is 1), REAL its
// real type. Checked by the caller: dtype, contiguity, T >= 1, 16-byte aligned arrays.
#ifndef COMPLEX
#define COMPLEX 0
#endif
const int VEC = 16 / sizeof(NUMBER);       // numbers that a thread reads at once

struct alignas(16) Pack { NUMBER v[VEC]; };
struct Step { NUMBER a, b; };

#if COMPLEX
__device__ __forceinline__ NUMBER number(REAL x) { return {x, 0}; }
__device__ __forceinline__ NUMBER conjugate(NUMBER p) { return {p.x, -p.y}; }
// p q + r
__device__ __forceinline__ NUMBER madd(NUMBER p, NUMBER q, NUMBER r)
{
    return {p.x * q.x - p.y * q.y + r.x, p.x * q.y + p.y * q.x + r.y};
}
__device__ __forceinline__ NUMBER from_lane_below(NUMBER p, int d)
{
    return {__shfl_up_sync(~0u, p.x, d), __shfl_up_sync(~0u, p.y, d)};
}
#else
__device__ __forceinline__ NUMBER number(REAL x) { return x; }
__device__ __forceinline__ NUMBER conjugate(NUMBER p) { return p; }
__device__ __forceinline__ NUMBER madd(NUMBER p, NUMBER q, NUMBER r)
{
    return p * q + r;
}
__device__ __forceinline__ NUMBER from_lane_below(NUMBER p, int d)
{
    return __shfl_up_sync(~0u, p, d);
}
#endif

__device__ __forceinline__ Step then(Step first, Step second)
{
    return {madd(second.a, first.a, number(0)), madd(second.a, first.b, second.b)};
}

// A row of T numbers in the order of a scan: position 0 comes first. Packs lie at
// multiples of 16 bytes, whatever T is, so the first begins `skew` numbers outside.
struct Row {
    int T, skew, reverse;

    __device__ int time(int p) const { return reverse ? T - 1 + skew - p : p - skew; }
    __device__ int start(int p) const { return reverse ? time(p + VEC - 1) : time(p); }
    __device__ bool holds(int t) const { return (unsigned)t < (unsigned)T; }
    __device__ bool whole(int t) const { return holds(t) & holds(t + VEC - 1); }

    // VEC numbers from position p on; what lies outside the row reads as `outside`
    __device__ Pack load(
        const NUMBER* row, int p, NUMBER outside, bool one, bool aligned) const
    {
        Pack x;
        const int t = start(p);
        if (aligned & !one & whole(t)) x = *(const Pack*)(row + t);
        else for (int k = 0; k < VEC; ++k)
            x.v[k] = holds(t + k) ? row[one ? 0 : t + k] : outside;
        return turned(x);
    }
    __device__ void store(NUMBER* row, int p, Pack x) const
    {
        const int t = start(p);
        x = turned(x);
        if (whole(t)) *(Pack*)(row + t) = x;
        else for (int k = 0; k < VEC; ++k) if (holds(t + k)) row[t + k] = x.v[k];
    }
    __device__ Pack turned(Pack x) const
    {
        Pack y;
        for (int k = 0; k < VEC; ++k) y.v[k] = x.v[reverse ? VEC - 1 - k : k];
        return y;
    }
};

__device__ __forceinline__ Row row_of(long long row, int T, int reverse)
{
    const int begin = row * T % VEC, end = (row + 1) * T % VEC;
    return {T, reverse ? (VEC - end) % VEC : begin, reverse};
}

// Positions that a scan passes: the same in all rows, so that all meet at its barriers.
__device__ __forceinline__ int span(int T) { return T % VEC ? T + VEC - 1 : T; }

// The state in front of this thread's stretch, which `mine` folds; `carry`, the state
// in front of the row's tile, moves on to its end. Warps first ... first + warps - 1
// share the row, and `totals` has an entry for each warp of the block.
__device__ __forceinline__ NUMBER enter(
    Step mine, NUMBER& carry, Step* totals, int lane, int warp, int first, int warps)
{
    for (int d = 1; d < 32; d *= 2) {      // now mine folds the lanes 0 ... lane
        const Step below = {from_lane_below(mine.a, d), from_lane_below(mine.b, d)};
        if (lane >= d) mine = then(below, mine);
    }
    Step before = {from_lane_below(mine.a, 1), from_lane_below(mine.b, 1)};
    if (lane == 0) before = {number(1), number(0)};
    if (lane == 31) totals[warp] = mine;
    __syncthreads();                       // the totals of all warps are there
    NUMBER state = carry;
    for (int k = first; k < first + warps; ++k) {
        if (k == warp) state = carry;
        carry = madd(totals[k].a, carry, totals[k].b);
    }
    return madd(before.a, state, before.b);
}

// Launch   ceil(rows / B) blocks of B threads, each one row
// Memory   neighbours read numbers T apart: no two in one sector, so all waits show
// Cost     2 flops (8 if complex) and 3 numbers a step, in T steps one after the other
// Index    r row; long long across rows
extern "C" __global__ void linear_recurrence_naive(
    const NUMBER* __restrict__ a, const NUMBER* __restrict__ b,
    const NUMBER* __restrict__ initial, NUMBER* __restrict__ h,
    int rows, int T, int a_rows, int a_T, int reverse)
{
    const int r = blockIdx.x * blockDim.x + threadIdx.x;
    if (r >= rows) return;
    NUMBER state = initial[r];
    for (int n = 0; n < T; ++n) {
        const int t = reverse ? T - 1 - n : n;
        const NUMBER a_t = a[(long long)(r % a_rows) * a_T + (a_T == 1 ? 0 : t)];
        state = madd(a_t, state, b[(long long)r * T + t]);
        h[(long long)r * T + t] = state;
    }
}

// Launch   ceil(rows / R) blocks of (32 m, R) threads, 32 m R <= 256: R rows a block,
//          tiles of 32 m VEC steps, one after the other
// Memory   16 bytes a thread, neighbour beside neighbour, whatever T is; coefficients
//          too, except where rows share one: those come from the caches
// Cost     3 numbers a step, 24 bytes in complex64: memory-bound. 10 / VEC shuffles and
//          some 60 / VEC flops a step, 4 times that if complex
// Index    p position in the order of the scan; long long across rows
// In complex128 one block may fill a multiprocessor: within 64 registers it spills.
extern "C" __global__ void __launch_bounds__(256, VEC == 1) linear_recurrence(
    const NUMBER* __restrict__ a, const NUMBER* __restrict__ b,
    const NUMBER* __restrict__ initial, NUMBER* __restrict__ h,
    int rows, int T, int a_rows, int a_T, int reverse)
{
    __shared__ Step totals[2][8];         // in turn: one barrier a tile is enough
    const int lane = threadIdx.x % 32, warps = blockDim.x / 32;
    const int first = threadIdx.y * warps, warp = first + threadIdx.x / 32;
    const int mine = blockIdx.x * blockDim.y + threadIdx.y;
    const long long row = min(mine, rows - 1);   // without a row: stores nothing
    const Row line = row_of(row, T, reverse);
    const NUMBER* a_row = a + row % a_rows * a_T;
    NUMBER carry = initial[row];
    for (int p0 = 0, turn = 0; p0 < span(T); p0 += VEC * blockDim.x, turn ^= 1) {
        const int p = p0 + VEC * threadIdx.x;
        const Pack u = line.load(a_row, p, number(1), a_T == 1, a_rows == rows);
        const Pack v = line.load(b + row * T, p, number(0), false, true);
        Step fold = {u.v[0], v.v[0]};
        for (int k = 1; k < VEC; ++k) fold = then(fold, {u.v[k], v.v[k]});
        NUMBER state = enter(fold, carry, totals[turn], lane, warp, first, warps);
        Pack out;
        for (int k = 0; k < VEC; ++k) out.v[k] = state = madd(u.v[k], state, v.v[k]);
        if (mine < rows) line.store(h + row * T, p, out);
    }
}

// s_t = g_t + conj(a_{t+1}) s_{t+1},  ga_t = s_t conj(h_{t-1}): what g, the gradient in
// h, becomes in b and in a. t+1 is the step after t and t-1 the one before it in the
// order of the recurrence, so with reverse = 1 they change places.
// Launch, Index  as linear_recurrence
// Memory   a and h are read one step aside, so number by number, 16 / VEC bytes apart
// Cost     5 numbers a step, 40 bytes in complex64: memory-bound
extern "C" __global__ void __launch_bounds__(256, VEC == 1) linear_recurrence_backward(
    const NUMBER* __restrict__ a, const NUMBER* __restrict__ h,
    const NUMBER* __restrict__ initial, const NUMBER* __restrict__ g,
    NUMBER* __restrict__ ga, NUMBER* __restrict__ s,
    int rows, int T, int a_rows, int a_T, int reverse)
{
    __shared__ Step totals[2][8];         // in turn: one barrier a tile is enough
    const int lane = threadIdx.x % 32, warps = blockDim.x / 32;
    const int first = threadIdx.y * warps, warp = first + threadIdx.x / 32;
    const int mine = blockIdx.x * blockDim.y + threadIdx.y;
    const long long row = min(mine, rows - 1);   // without a row: stores nothing
    const Row line = row_of(row, T, !reverse);
    const NUMBER* a_row = a + row % a_rows * a_T;
    const NUMBER* h_row = h + row * T;
    const int next = reverse ? -1 : 1;
    NUMBER carry = number(0);
    for (int p0 = 0, turn = 0; p0 < span(T); p0 += VEC * blockDim.x, turn ^= 1) {
        const int p = p0 + VEC * threadIdx.x;
        Pack u, v = line.load(g + row * T, p, number(0), false, true), out;
        for (int k = 0; k < VEC; ++k) {
            const int t = line.time(p + k) + next;
            const bool inside = line.holds(t) & line.holds(t - next);
            u.v[k] = inside ? conjugate(a_row[a_T == 1 ? 0 : t]) : number(1);
        }
        Step fold = {u.v[0], v.v[0]};
        for (int k = 1; k < VEC; ++k) fold = then(fold, {u.v[k], v.v[k]});
        NUMBER state = enter(fold, carry, totals[turn], lane, warp, first, warps);
        for (int k = 0; k < VEC; ++k) out.v[k] = state = madd(u.v[k], state, v.v[k]);
        if (mine < rows) line.store(s + row * T, p, out);
        for (int k = 0; k < VEC; ++k) {
            const int t = line.time(p + k) - next;
            const NUMBER before = line.holds(t) ? h_row[t] : initial[row];
            out.v[k] = madd(out.v[k], conjugate(before), number(0));
        }
        if (mine < rows) line.store(ga + row * T, p, out);
    }
}
